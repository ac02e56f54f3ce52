"""``bench compare RUN``: TBO on against off for every case of a run; ``bench compare BASE NEW``: run against run;
``bench compare RUN --across AXIS``: a run against itself along an axis.

Undecided is an answer: exit 0, unless ``--gate`` asks for exit codes to act on. Nothing in common is none: exit 4.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from bench.no_collecting import no_collecting

if TYPE_CHECKING:
    from bench.run_folder import RunFolder


@click.command(name="compare")
@click.argument("run", metavar="RUN|BASE", type=click.Path(path_type=Path))
@click.argument("new", metavar="[NEW]", required=False, type=click.Path(path_type=Path))
@click.option("--filter", "filter_text", metavar="KEY=VALUE,...", help="Only these cases and variants.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document instead of tables.")
@click.option("--gate", is_flag=True, help="Exit 1 on a regression, 3 if undecided, 4 if not comparable.")
@click.option("--across", metavar="AXIS", help="Compare cases that differ along AXIS: precision, link.")
@click.option("--absolute", is_flag=True, help="Let times end the gate too, not TBO's speed-up alone.")
@click.option("--anyway", is_flag=True, help="Compare runs of different machines or timers, with that doubt.")
@no_collecting()
def command(
    run: Path,
    new: Path | None,
    filter_text: str | None,
    as_json: bool,
    gate: bool,
    across: str | None,
    absolute: bool,
    anyway: bool,
) -> int:
    """Compare each variant of RUN, a run folder, with its own T1 (TBO off).

    With two run folders, BASE and NEW: say whether TBO's speed-up changed between them. With RUN and --across: whether
    it differs along that axis within the run.
    """
    from bench import against, report
    from bench.render import against_document, against_terminal, document, terminal
    from bench.render.printing import show, show_json

    if new is None and across is None:
        _refuse_without_new(gate=gate, absolute=absolute, anyway=anyway)
        folder = _open(run)
        model = report.build(folder, report.only(folder.trials(), filter_text))
        if as_json:
            show_json(document.document(model))
        else:
            show(terminal.summary(model))
        return 0
    base = _open(run)
    found = against.build(
        base,
        base if new is None else _open(new),
        across=across,
        filter_text=filter_text,
        anyway=anyway,
        absolute=absolute,
        gated=gate,
    )
    if as_json:
        show_json(against_document.document(found))
    else:
        show(against_terminal.summary(found))
    return int(found.code)


def _open(path: Path) -> "RunFolder":
    from bench.run_folder import open_run

    folder = open_run(path)
    if torn := folder.torn_line():
        click.echo(torn, err=True)
    return folder


def _refuse_without_new(**asked: bool) -> None:
    from bench.errors import BenchError

    if given := [f"--{name}" for name, is_set in asked.items() if is_set]:
        raise BenchError(f"{given[0]}: compares two runs, found one: bench compare BASE NEW {given[0]}")
