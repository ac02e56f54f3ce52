"""The command line: finds the verb, runs it, and is the only place that prints errors and sets the exit code.

Only click is imported here: each verb is ``bench/commands/<verb>.py`` with a ``command``, imported when it is called.
"""

import importlib
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Sequence

import click

from bench.errors import BenchError, Exit
from bench.hints import did_you_mean
from bench.printable import printable

VERBS = {
    "doctor": "Say what this machine can measure, how well, and what is missing for more.",
    "plan": "Say what a sweep file would run here, how much memory and how long, and run nothing.",
    "sweep": "Measure every case of a sweep file: TBO off against TBO on.",
    "compare": "Say whether TBO on beats TBO off in a run, or what changed between two runs.",
    "report": "Write a run's report again from its results.",
    "export": "Write a run's results as one CSV or Parquet table.",
    "calibrate": "Write a run's measured link as a table that one GPU stands in for it with.",
    "profile": "Profile one case, TBO off beside TBO on, and say what it shows.",
    "analyze": "Say how much communication a profile hides, and what the GPU waited for.",
}
"""Name and short help, so that listing them imports none."""

BROKEN_PIPE = 128 + int(getattr(signal, "SIGPIPE", 13))
"""What a shell reports for a program whose reader went away: none of our codes, for nothing of ours went wrong."""


class LazyGroup(click.Group):
    """A group whose verbs are imported only when one is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in VERBS:
            raise click.UsageError(
                f"unknown verb {args[0]}{did_you_mean(args[0], VERBS) or ','} allowed: {', '.join(VERBS)}", ctx
            )
        return super().resolve_command(ctx, args)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        command = importlib.import_module(f"bench.commands.{cmd_name}").command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))


def _version(context: click.Context, option: click.Parameter, asked: bool) -> None:
    if asked:
        from bench.version import version

        click.echo(f"bench {version()}")
        context.exit()


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]}, no_args_is_help=True)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Which code this is."
)
def bench() -> None:
    """Does two-batch overlap (TBO) pay for an NVFP4 mixture-of-experts layer on this GPU, link and token count?"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code (see :class:`bench.errors.Exit`).

    A verb returns its exit code (None is 0) and raises BenchError for everything a user must know.
    """
    try:
        code = _invoke(sys.argv[1:] if arguments is None else list(arguments))
        sys.stdout.flush()  # here, where a closed pipe can still be caught
    except BenchError as error:
        for problem in error.problems:
            in_one_line = problem.replace("\n", "\\n")  # a key of a sweep file may have two lines
            print(f"error: {printable(in_one_line)}", file=sys.stderr)
        return int(error.code)
    except click.ClickException as error:
        _show_usage_error(error)
        return int(Exit.BAD_INPUT)
    except (KeyboardInterrupt, click.Abort):
        return int(Exit.INTERRUPTED)
    except BrokenPipeError:
        # Python flushes standard output once more on its way out
        _leave_stdout_alone()
        return BROKEN_PIPE
    except OSError as error:
        if not _stdout_fails():
            return _internal(error)
        print(f"error: standard output: {error.strerror or error}", file=sys.stderr)
        _leave_stdout_alone()
        return int(Exit.BAD_INPUT)
    except SystemExit as leaving:
        if isinstance(leaving.__context__, BrokenPipeError):  # rich's way to meet one, with exit code 1
            return BROKEN_PIPE
        raise
    except Exception as error:
        return _internal(error)
    return code


def _internal(error: Exception) -> int:
    print(f"internal error: {_one_line(error)}; {_kept_traceback()}", file=sys.stderr)
    return int(Exit.INTERNAL)


def _stdout_fails() -> bool:
    """Whether nothing more can be printed (a full disk). Tried, for an OSError does not say which file it met."""
    try:
        sys.stdout.write("\n")
        sys.stdout.flush()
    except OSError:
        return True
    return False


def _leave_stdout_alone() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _invoke(arguments: list[str]) -> int:
    # not bench.main(): it turns a broken pipe into exit code 1, which is none of Exit's
    try:
        with bench.make_context("bench", arguments) as context:
            code = bench.invoke(context)
    except click.exceptions.Exit as done:  # --help
        code = done.exit_code
    return int(code or 0)


def _show_usage_error(error: click.ClickException) -> None:
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
        return
    context = getattr(error, "ctx", None)
    hint = f" (see {context.command_path} --help)" if context else ""
    print(f"error: {_one_line(error.format_message())}{hint}", file=sys.stderr)


def _one_line(error: object) -> str:
    text = printable(" ".join(str(error).split()))
    return f"{type(error).__name__}: {text}" if isinstance(error, Exception) else text


def _kept_traceback() -> str:
    if os.environ.get("BENCH_TRACEBACK") == "1":
        traceback.print_exc()
        return "the traceback is above"
    try:
        with tempfile.NamedTemporaryFile("w", prefix="bench-traceback-", suffix=".txt", delete=False) as file:
            traceback.print_exc(file=file)
    except OSError as error:
        return f"its traceback cannot be kept: {error.strerror or error} (BENCH_TRACEBACK=1 prints it)"
    return f"the traceback is in {file.name} (BENCH_TRACEBACK=1 prints it)"


if __name__ == "__main__":
    sys.exit(main())
