"""Build the comparison of two run folders: what is compared, in which order, beside which doubts. Makes no text."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.deciding import facts
from bench.deciding.across import Axis, axis_named
from bench.deciding.between import together
from bench.deciding.changes import Between, Change
from bench.deciding.facts import Differing
from bench.deciding.gate import gate
from bench.deciding.join import Series, SeriesOfRows
from bench.errors import BenchError, Exit
from bench.judged import judge
from bench.run_folder import RunFolder
from bench.settings import MeasureSettings
from moe_impl.options import Machine


@dataclass(frozen=True)
class Section:
    """One series of NEW against one of BASE, rows by token count."""

    base: Series
    new: Series
    rows: tuple[Change, ...]


@dataclass(frozen=True)
class Against:
    """Run against run."""

    base: Path
    new: Path
    across: str | None
    """The axis along which cases may differ."""
    measure: MeasureSettings
    """BASE's: its margins decide."""
    machines: tuple[Machine, ...]
    between: Between
    sections: tuple[Section, ...]
    unlike: tuple[Differing, ...]
    """Why the runs are not comparable, where they were compared anyway: a doubt of every row."""
    environment: tuple[Differing, ...]
    """What else differs: software, clocks, settings, how it was measured."""
    same_run: bool
    """BASE and NEW are one folder."""
    absolute: bool
    """Times may end a gate."""
    gate: Exit | None
    """What the gate ends with; None without one."""

    @property
    def on_cpu(self) -> bool:
        return all(machine.device == "cpu" for machine in self.machines)

    @property
    def code(self) -> Exit:
        """What the program ends with: the gate's, or whether anything could be compared."""
        if self.gate is not None:
            return self.gate
        return Exit.DONE if self.between.changes else Exit.NOT_COMPARABLE


def build(
    base: RunFolder,
    new: RunFolder,
    *,
    across: str | None = None,
    filter_text: str | None = None,
    anyway: bool = False,
    absolute: bool = False,
    gated: bool = False,
) -> Against:
    """Compare two opened run folders.

    Args:
        base: sets the standard.
        new: is judged.
        across: the axis along which the cases may differ.
        filter_text: cases and variants to keep, of both.
        anyway: compare runs that are not alike.
        absolute: let times end a gate too.
        gated: say what a gate ends with.

    Raises:
        BenchError: not alike and not ``anyway``, nothing in common, no Trials; an unknown axis, a filter that matches
            nothing in either run.
    """
    same_run = base.path.resolve() == new.path.resolve()
    axis, measure = axis_named(across, one_run=same_run), base.config().measure
    found = judge(base, new, measure, axis, filter_text)
    kinds = list(found.base.kinds.values()), list(found.new.kinds.values())
    unlike = facts.unlike(*kinds) if all(kinds) else ()
    if unlike and not anyway:
        said = "; ".join(f"{fact.name} {fact.base} against {fact.new}" for fact in unlike)
        raise BenchError(
            f"{base.path} and {new.path} are not comparable: {said} (--anyway compares them, with that doubt)",
            code=Exit.NOT_COMPARABLE,
        )
    between = together(found.alone)
    if not (between.changes or between.not_compared or between.turned_off):
        raise BenchError(_nothing(base, new, axis, same_run), code=Exit.NOT_COMPARABLE)
    return Against(
        base=base.path,
        new=new.path,
        across=across,
        measure=measure,
        machines=tuple(dict.fromkeys(trial.machine for side in kinds for trial in side)),
        between=between,
        sections=_sections(between.changes),
        unlike=unlike,
        environment=facts.differing(_recorded(base), _recorded(new)),
        same_run=same_run,
        absolute=absolute,
        gate=gate(between, alike=not unlike, absolute=absolute) if gated else None,
    )


def _recorded(run: RunFolder) -> dict[str, object]:
    return {**run.environment(), "measure": asdict(run.config().measure)}


def _nothing(base: RunFolder, new: RunFolder, axis: Axis | None, same_run: bool) -> str:
    if axis is None:
        return f"{base.path} and {new.path}: nothing to compare, {base.path} timed no overlapped variant"
    if same_run:
        return f"{base.path}: nothing to compare across {axis.name}, its overlapped variants were timed at one alone"
    return f"{base.path} and {new.path}: nothing to compare across {axis.name}, {axis.order}"


def _sections(changes: Sequence[Change]) -> tuple[Section, ...]:
    series_of = SeriesOfRows()
    groups: dict[tuple[int, int], tuple[Series, Series, list[Change]]] = {}
    for row in changes:
        sides = (series_of(side.workload, side.link, side.variant) for side in (row.base, row.new))
        base, new = sides
        groups.setdefault((id(base), id(new)), (base, new, []))[-1].append(row)
    return tuple(
        Section(base, new, tuple(sorted(rows, key=lambda row: row.tokens))) for base, new, rows in groups.values()
    )
