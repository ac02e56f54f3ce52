"""When the host issued what a CUDA graph replays: its capture, in a profile that saw both.

A replay is one launch, so the ranges around it tell the iteration and no stage; those around the captured call do. A
trace of torch.profiler numbers the nodes of a graph in the order in which they were made, and lists the captured calls,
which ran nothing: the n-th node is the n-th call's, by kind. What does not add up stays unknown.
"""

from collections.abc import Iterable, Mapping

from bench.timeline.model import UNKNOWN

KERNEL, COPY, SET, REPLAY = range(4)


def kind_of(call: str) -> int:
    """Of what a call of the CUDA API launches; UNKNOWN where it launches nothing."""
    for word, kind in (("GraphLaunch", REPLAY), ("Memcpy", COPY), ("Memset", SET), ("Launch", KERNEL)):
        if word in call:
            return kind
    return UNKNOWN


def captured_at(nodes: Mapping[int, int], calls: Iterable[tuple[int, int]]) -> dict[int, int]:
    """Node -> when its captured call began; of a kind of which there are as many nodes as calls.

    Args:
        nodes: number -> kind of every node that was replayed.
        calls: (start, kind) of every call that launched nothing at once.
    """
    by_kind: dict[int, list[int]] = {}
    for start, kind in sorted(calls):
        by_kind.setdefault(kind, []).append(start)
    found: dict[int, int] = {}
    for kind in set(nodes.values()):
        numbers = sorted(node for node, of_kind in nodes.items() if of_kind == kind)
        starts = by_kind.get(kind, [])
        if len(numbers) == len(starts):
            found.update(zip(numbers, starts, strict=True))
    return found


def unmatched(pieces: int) -> list[str]:
    """The doubt about so many pieces of replayed work whose capture is unknown."""
    if not pieces:
        return []
    return [f"{pieces} pieces of work of graph replays could not be matched to a captured call: their stage is unknown"]
