"""Where a worker is, since when, and whether it still moves: its last Step and its progress file. Torch-free."""

import time
from pathlib import Path

from bench.cases import Case
from bench.identity import variant_id
from bench.results import Status
from bench.running import progress_file
from bench.running.messages import Event, Finished, Step
from moe_impl.options import Variant
from moe_impl.overlap import schedule


class Watch:
    """One worker's clock. A case's time runs from its first Step (or from when it was due) to its Finished."""

    def __init__(self, limit_s: float, progress_path: Path) -> None:
        self.limit_s = limit_s
        self.step: Step | None = None
        """The last one of the case under way; None between cases."""
        self._progress_path = progress_path
        self._place = progress_file.NOWHERE
        self._began_s = self._sign_s = time.monotonic()

    def see(self, event: Event | None) -> None:
        """Note an event, or with None that there was none, and where the worker is now."""
        now = time.monotonic()
        place = progress_file.read(self._progress_path)
        if event is not None or place != self._place:
            self._sign_s = now
        self._place = place
        if isinstance(event, Step):
            if self.step is None or self.step.case_id != event.case_id:
                self._began_s = now
            self.step = event
        elif isinstance(event, Finished):
            self.step, self._began_s = None, now

    def overdue(self) -> Status | None:
        """TIMEOUT, or HANG where nothing moved in the last half of the limit; None within it."""
        now = time.monotonic()
        if now - self._began_s <= self.limit_s:
            return None
        return Status.HANG if now - self._sign_s >= self.limit_s / 2 else Status.TIMEOUT

    def variant(self, case: Case, named: str | None) -> Variant | None:
        """The variant under way: the one an event named, else the one whose op was issued last, else None."""
        for variant in case.variants:
            if variant_id(variant) == named:
                return variant
        index = self._place[0]
        return case.variants[index] if 0 <= index < len(case.variants) else None

    def where(self, case: Case, phase: str, variant: Variant | None) -> str:
        """``in phase measure, variant streams x2 torch, last op issued: layer 0 ubatch 1 gemm2``."""
        where = f"in phase {phase}"
        if variant is None:
            return where
        ops = schedule.for_variant(variant, case.workload).ops
        position = self._place[1]
        last = str(ops[position]) if 0 <= position < len(ops) else "none"
        return f"{where}, variant {variant.label}, last op issued: {last}"
