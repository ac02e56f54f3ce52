"""Which stored cases a sweep added to those its file lists (bench.refining), told by their fields. Torch-free."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace

from bench.cases import Case
from bench.deciding.join import at_any_tokens
from bench.results import Trial
from bench.settings import MeasureSettings
from moe_impl.options import Link, Workload

FACTORS = (0.5, 2.0)
"""Of a modelled link's bandwidth: what the bracket's two cases are measured at, too."""


def scaled(link: Link, factor: float) -> Link:
    """The same modelled link with its bandwidth times ``factor``; alpha stays."""
    times = tuple(replace(t, bandwidth_bytes_per_s=t.bandwidth_bytes_per_s * factor) for t in link.times)
    said = f"bandwidth x{factor:g} of {link.name}"
    return replace(
        link,
        times=times,
        name=f"{link.name}-x{factor:g}",
        source=f"{link.source}, {said}",
        note=said if link.note is None else f"{link.note}, {said}",
    )


def base_of(link: Link, listed: Collection[Link]) -> Link | None:
    """The listed link whose bandwidth was changed to make ``link``; None for a listed one, and for any other."""
    if link in listed:
        return None
    return next((base for base in listed for factor in FACTORS if scaled(base, factor) == link), None)


class Added:
    """Which stored Trials a sweep's own rounds added to what its file lists."""

    def __init__(self, listed: Iterable[Case], measure: MeasureSettings) -> None:
        self._listed, self._measure = list(listed), measure
        self._ids = {case.case_id for case in self._listed}
        self._like = {(at_any_tokens(case.workload), case.link): case for case in self._listed}
        self._links = {case.link for case in self._listed}

    def like(self, workload: Workload, link: Link) -> Case | None:
        """A listed case with this workload's token count in place of its own; None where none differs in that alone."""
        model = self._like.get((at_any_tokens(workload), link))
        return None if model is None else replace(model, workload=workload)

    def is_base(self, trial: Trial) -> bool:
        """Over a link that the file lists: no what-if."""
        return trial.link in self._links

    def cases(self, trials: Iterable[Trial]) -> Iterator[Case]:
        """Of the added Trials, each once, with the variants of the listed case that it is like; none where ``measure``
        asks for none."""
        seen = set(self._ids)
        for trial in trials:
            if trial.case_id in seen:
                continue
            model = None
            if self.is_base(trial):
                model = self.like(trial.workload, trial.link) if self._measure.refine != "off" else None
            elif self._measure.link_sensitivity and (base := base_of(trial.link, self._links)) is not None:
                model = self.like(trial.workload, base)
            if model is not None:
                seen.add(trial.case_id)
                yield replace(model, link=trial.link)
