"""Shows how a sweep goes: a bar on a terminal, one line a Trial. On standard error, for output is for results."""

from collections import Counter
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from bench.cases import Case
from bench.printable import printable
from bench.results import FAILURES, Status, Trial
from bench.running.failures import outcome_lines
from bench.running.messages import Step

STYLES = {Status.OK: "green", Status.SKIPPED: "dim"}
FAILURE_STYLE = "bold red"


class SweepProgress:
    """A supervisor's Listener. Use as a context manager.

    Args:
        names: case_id -> how people name the case.
        todo: per pass, the cases to run in it.
    """

    def __init__(self, names: Mapping[str, str], todo: Sequence[Sequence[Case]]) -> None:
        self._names, self._total, self._passes = names, sum(map(len, todo)), len(todo)
        self._console = Console(stderr=True, highlight=False)
        self._stored = 0
        self._bar = Progress(
            SpinnerColumn(),
            MofNCompleteColumn(),
            BarColumn(bar_width=16),
            TimeElapsedColumn(),
            TextColumn("{task.description}"),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("starting the first worker", total=self._total)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def stepped(self, pass_index: int, case: Case, step: Step) -> None:
        """Show the pass, the case under way and its phase."""
        phase = step.phase if not step.detail or step.detail == step.phase else f"{step.phase} {step.detail}"
        where = f"{self._pass(pass_index)}, {escape(printable(self._names[case.case_id]))}: {escape(printable(phase))}"
        self._bar.update(self._task, description=where)

    def finished(self, trial: Trial) -> None:
        """Print the Trial's line: how many variants ended how, and how long it took."""
        self._stored += 1
        counts = Counter(m.status for m in trial.measurements)
        outcome = ", ".join(
            f"[{STYLES.get(status, FAILURE_STYLE)}]{counts[status]} {status}[/]" for status in Status if counts[status]
        )
        place = f"{self._stored:>{len(str(self._total))}}/{self._total}"
        name = escape(printable(self._names[trial.case_id]))
        self._console.print(
            f"{place} {self._pass(trial.pass_index)}, {name}: {outcome}, {trial.elapsed_s:.1f} s", soft_wrap=True
        )
        failed = [(m.variant.label, m.status, m.reason) for m in trial.measurements if m.status in FAILURES]
        for text in outcome_lines(failed):
            self._console.print(f"    {escape(printable(text))}", style=FAILURE_STYLE, soft_wrap=True)
        self._bar.update(
            self._task, completed=self._stored, description=f"{self._pass(trial.pass_index)}, {name}: stored"
        )

    def _pass(self, pass_index: int) -> str:
        return f"pass {pass_index + 1}/{self._passes}"
