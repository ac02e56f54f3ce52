"""After the listed cases: round by round, what their verdicts ask to be measured too (bench.refining). Torch-free."""

import time
from collections.abc import Callable, Sequence

from bench import units
from bench.cases import Case
from bench.naming import case_names
from bench.run_folder import RunFolder
from bench.running import resume
from bench.settings import MeasureSettings


def measure_what_verdicts_ask(
    folder: RunFolder,
    measure: MeasureSettings,
    listed: Sequence[Case],
    carry_out: Callable[[dict[str, str], resume.Todo], object],
    say: Callable[[str], object],
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Run rounds until no rule asks for more; ``measure.refine_limit_s`` ends refinement alone.

    Args:
        listed: what the sweep file lists, after ``--filter``; all of it is measured.
        carry_out: given names by case id and what is to do, measures it into ``folder``.
        say: told each case that is added and why, and each series that has nothing to refine.
        clock: seconds, from any start.
    """
    if not measure.adds_cases:
        return
    from bench.refining import Refinement, refinements, sensitivities, without_bracket  # here: they load scipy

    def run(found: Sequence[Refinement]) -> None:
        for refinement in found:
            say(f"refining: {refinement.why}")
        added = [refinement.case for refinement in found]
        carry_out(case_names([*listed, *added]), resume.remaining(added, added, folder.trials(), measure.passes))

    began = clock()
    while found := refinements(folder.trials(), listed, measure):
        if clock() - began > measure.refine_limit_s:
            say(f"refining: no further, measure.refine_limit of {units.format_seconds(measure.refine_limit_s)} is over")
            break
        run(found)
    for line in without_bracket(folder.trials(), listed, measure):
        say(f"refining: {line}")
    if found := sensitivities(folder.trials(), listed, measure):  # at the brackets that are left; they move none
        run(found)
