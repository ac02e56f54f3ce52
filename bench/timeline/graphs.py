"""When the host issued what a CUDA graph replays: its capture, in a profile that saw both.

A replay is one launch, so the ranges around it tell the iteration and no stage; those around the captured call do.
Nsight Systems numbers the nodes of a graph. A trace of torch.profiler does not, and a captured call, which runs
nothing, has no name of a kernel in it. So the profiled program issues the same iteration once without a graph, inside
the range AS_ISSUED: the n-th captured call is of what the n-th call there launched. Work of one name that was issued to
one stream then runs in the order of its calls. What does not add up stays unknown.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

from bench.timeline.model import UNKNOWN

KERNEL, COPY, SET, REPLAY = range(4)
AS_ISSUED = "as issued"


def kind_of(call: str) -> int:
    """Of what a call of the CUDA API launches; UNKNOWN where it launches nothing."""
    for word, kind in (("GraphLaunch", REPLAY), ("Memcpy", COPY), ("Memset", SET), ("Launch", KERNEL)):
        if word in call:
            return kind
    return UNKNOWN


def captured_by_name(
    issued: Iterable[tuple[int, int, int, int]], captured: Iterable[tuple[int, int]]
) -> dict[int, list[int]]:
    """Name of work -> when each captured call of it began, in order; none where the calls are not those issued.

    Args:
        issued: (start of the call, kind, name of the work, stream) of every call inside AS_ISSUED.
        captured: (start, kind) of every call that launched nothing at once.
    """
    before, calls = sorted(issued), sorted(call for call in captured if call[1] != UNKNOWN)
    if [kind for _, kind, _, _ in before] != [kind for _, kind in calls]:
        return {}
    streams: dict[int, set[int]] = {}
    for _, _, name, stream in before:
        streams.setdefault(name, set()).add(stream)
    found: dict[int, list[int]] = {}
    for (_, _, name, _), (start, _) in zip(before, calls, strict=True):
        if len(streams[name]) == 1:
            found.setdefault(name, []).append(start)
    return found


def in_capture_order(names: Sequence[int], captured: dict[int, list[int]]) -> list[int]:
    """When the call of each piece of one replay was captured, given the pieces' names by their start."""
    pieces = Counter(names)
    left = {name: iter(starts) for name, starts in captured.items() if pieces[name] == len(starts)}
    return [next(left[name]) if name in left else UNKNOWN for name in names]


def unmatched(pieces: int) -> list[str]:
    """The doubt about so many pieces of replayed work whose capture is unknown."""
    if not pieces:
        return []
    return [f"{pieces} pieces of work of graph replays could not be matched to a captured call: their stage is unknown"]
