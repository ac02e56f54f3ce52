"""What the profiled process is asked to do: one line of JSON. Torch-free."""

from dataclasses import dataclass
from typing import Literal

from pydantic import TypeAdapter

from bench.cases import Case
from bench.results import ExpertsChoice

Tool = Literal["torch", "nsys", "ncu"]
ITERATIONS = 5
WARM_ITERATIONS = 5


@dataclass(frozen=True)
class Request:
    """Run the case's variants, one after the other, each warmed up before it is recorded."""

    case: Case
    tool: Tool
    folder: str
    """Where ``torch`` leaves one trace a variant, named by :func:`trace_name`."""
    iterations: int = ITERATIONS
    experts_choice: ExpertsChoice | None = None
    """What the run made of the case's ``experts: auto``; None: the profiled process chooses."""


_REQUEST: TypeAdapter[Request] = TypeAdapter(Request)


def trace_name(index: int) -> str:
    """Of the case's ``index``-th variant."""
    return f"variant-{index}.json"


def dump(request: Request) -> bytes:
    """JSON."""
    return _REQUEST.dump_json(request)


def load(text: bytes) -> Request:
    """Raises pydantic's ValidationError on anything that is no Request."""
    return _REQUEST.validate_json(text)
