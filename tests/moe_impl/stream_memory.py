"""Who uses which memory when, in a variant's own bodies, judged as if its lanes were CUDA streams.

A run on a CPU is recorded op by op: what was allocated, read, written and let go. Bodies are issued in the schedule's
order on a GPU too, so tensors come into being and are let go there at the same places. Then, for all timings at once
(:mod:`order_of_ops`), the record must hold

- no two uses of a block on different lanes, one of them writing, in no order;
- no use of a block that was let go, in no order with a use of a later block of the same lane. The caching allocator
  keeps a pool a stream and hands freed memory to whoever asks next on that stream, without waiting: any later block may
  be the same memory. It does wait for streams that ``record_stream`` named.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from order_of_ops import LANES, Edge, ancestors
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from moe_impl.overlap.schedule import Op, Schedule
from moe_impl.stages import Lane
from moe_impl.variant_run import VariantRun


@dataclass
class Block:
    """One piece of memory, from its allocation until nothing holds it."""

    allocated: int | None
    """Position of the op; None: it was there before the run."""
    born: int = 0
    """Place in the order of all allocations."""
    freed: int | None = None
    """How many blocks had been allocated by then; None: it outlived the run."""
    reads: set[int] = field(default_factory=set)
    writes: set[int] = field(default_factory=set)
    recorded: bool = False
    """Whether ``record_stream`` named the compute lane."""

    @property
    def uses(self) -> set[int]:
        return self.reads | self.writes


class Recorder(TorchDispatchMode):
    """Sees every torch operation below it; a view uses no memory."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks: list[Block] = []
        self._live: dict[int, tuple[StorageWeakRef, Block]] = {}
        self._position: int | None = None

    @contextmanager
    def around(self, position: int, op: Op) -> Iterator[None]:
        self._position = position
        yield
        self._position = None

    def record_stream(self, tensor: Tensor) -> None:
        """In place of ``Tensor.record_stream``."""
        self._block(tensor, None).recorded = True

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = [(leaf, self._block(leaf, None)) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        self.let_go()
        made = func(*args, **kwargs)
        known = {id(block) for _, block in given}
        results = [self._block(leaf, self._position) for leaf in tree_leaves(made) if isinstance(leaf, Tensor)]
        if self._position is None:
            return made
        changed = self._changed(func, args, kwargs)
        is_view = not changed and results and all(id(block) in known for block in results)
        for leaf, block in given if not is_view else ():
            (block.writes if id(leaf) in changed else block.reads).add(self._position)
        for block in results:
            if id(block) not in known:
                block.writes.add(self._position)
        return made

    @staticmethod
    def _changed(func: Any, args: Sequence[Any], kwargs: Any) -> set[int]:
        """ids of the tensors that the operation writes, by its schema."""
        found = set()
        for index, argument in enumerate(func._schema.arguments):
            if argument.alias_info is not None and argument.alias_info.is_write:
                value = args[index] if index < len(args) else kwargs.get(argument.name)
                found |= {id(leaf) for leaf in tree_leaves(value) if isinstance(leaf, Tensor)}
        return found

    def _block(self, tensor: Tensor, position: int | None) -> Block:
        """The block behind a tensor; a new one was allocated at ``position``."""
        storage = StorageWeakRef(tensor.untyped_storage())
        if storage.cdata not in self._live:
            block = Block(position, born=len(self.blocks))
            self.blocks.append(block)
            self._live[storage.cdata] = (storage, block)
        return self._live[storage.cdata][1]

    def let_go(self) -> None:
        """Note which blocks nothing holds any more."""
        for key, (storage, block) in list(self._live.items()):
            if storage.expired():
                block.freed = len(self.blocks)
                del self._live[key]


@dataclass(frozen=True)
class Memory:
    """What one iteration of a schedule did with memory; pairs of positions."""

    schedule: Schedule
    conflicts: frozenset[tuple[int, int]]
    """Ops on different lanes that use one block, at least one of them writing."""
    reuses: frozenset[tuple[int, int]]
    """(op that used a block let go, op on the other lane that uses one which may be the same memory)."""

    def hazards(self, without: frozenset[Edge] = frozenset()) -> set[str]:
        """What may go wrong under some timing, in words; empty if nothing can."""
        over, ops = ancestors(self.schedule, without), self.schedule.ops
        at_once = {(a, b) for a, b in self.conflicts if a not in over[b] and b not in over[a]}
        too_early = {(a, b) for a, b in self.reuses if a not in over[b]}
        return {f"{ops[a]} and {ops[b]} use one block at once" for a, b in at_once} | {
            f"{ops[b]} may get memory that {ops[a]} still uses" for a, b in too_early
        }


def record(run: VariantRun) -> Memory:
    """One iteration of a variant, on one lane of a CPU. What torch does not dispatch is not seen (``tolist``).

    Under receive ``exact`` the bodies are told that there is a compute stream, so that they record their use by it.
    """
    recorder, schedule = Recorder(), run.schedule
    run._stages._compute = "the compute stream"  # type: ignore[assignment]
    with recorder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tensor, "record_stream", lambda tensor, stream: recorder.record_stream(tensor))
        states = run._run(run._stages.bodies, recorder.around)
        recorder.let_go()
    del states
    lanes = [op.lane for op in schedule.ops]
    conflicts = {(write, use) for block in recorder.blocks for write in block.writes for use in block.uses}
    reuses = set().union(*(_reuses(recorder.blocks, lanes, lane) for lane in LANES))

    def crossing(pairs: set[tuple[int, int]]) -> frozenset[tuple[int, int]]:
        return frozenset((a, b) for a, b in pairs if lanes[a] != lanes[b])

    return Memory(schedule, crossing(conflicts), crossing(reuses))


def _reuses(blocks: Sequence[Block], lanes: Sequence[Lane], lane: Lane) -> set[tuple[int, int]]:
    """Of the pool of one lane's stream: uses of each block with those of all that were allocated after it was freed."""
    of_pool = [block for block in blocks if block.allocated is not None and lanes[block.allocated] == lane]
    later: list[tuple[int, set[int]]] = [(len(blocks), set())]  # uses of the blocks born then or later, newest first
    for block in reversed(of_pool):
        later.append((block.born, later[-1][1] | block.uses))
    pairs = set()
    for old in of_pool:
        if old.freed is not None:
            reused = next(uses for born, uses in reversed(later) if born >= old.freed)
            pairs |= {(a, b) for a in old.uses for b in reused if not (old.recorded and lanes[a] == "compute")}
    return pairs
