"""The command line. Everything heavy is imported inside the commands, so that help is instant."""

import io
import re
import sys
import warnings
from collections.abc import Callable
from typing import Annotated

import typer

from quickstudy import __version__
from quickstudy.cli import model
from quickstudy.cli.compare import compare
from quickstudy.cli.data import data_app
from quickstudy.cli.demo import demo
from quickstudy.cli.evaluate import evaluate
from quickstudy.cli.options import StoppedError, nearest, say
from quickstudy.cli.reproduce import reproduce
from quickstudy.cli.train import train
from quickstudy.plain import printable

__all__ = ["app", "main"]

BAD_INPUT, INTERRUPTED = 2, 130

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Train once on many tasks, then learn a new one from a handful of examples.",
)
app.add_typer(data_app, name="data")
app.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})(train)
_COMMANDS: tuple[Callable[..., None], ...] = (evaluate, compare, reproduce, demo, *model.COMMANDS)
for _command in _COMMANDS:
    app.command()(_command)


def main() -> None:
    """Run the command line; bad input gives one clear line and exit status 2."""
    debug = "--debug" in sys.argv
    for stream in (sys.stdout, sys.stderr):  # names that a terminal cannot show are escaped
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    warnings.simplefilter("default", UserWarning)  # they are our words, whatever Python was told
    warnings.formatwarning = lambda message, *rest: (
        f"warning: {printable(' '.join(str(message).splitlines()))}\n"
    )
    try:
        sys.exit(app([a for a in sys.argv[1:] if a != "--debug"], standalone_mode=False) or 0)
    except (StoppedError, KeyboardInterrupt, typer.Abort) as stop:
        say(str(stop) or "stopped")
        sys.exit(INTERRUPTED)
    except Exception as error:
        if hasattr(error, "show") and hasattr(error, "exit_code"):  # Typer's own usage errors
            if words := getattr(error, "message", ""):
                error.message = _plain(words)  # type: ignore[attr-defined]
            error.show()
            sys.exit(BAD_INPUT)
        if debug:
            raise
        if _was_interrupted(error):
            say("stopped")
            sys.exit(INTERRUPTED)
        if isinstance(error, ValueError | OSError | ArithmeticError | ModuleNotFoundError):
            say(f"error: {error}")
            sys.exit(BAD_INPUT)
        say(f"error: {error} [{type(error).__name__}; see it all with --debug]")
        sys.exit(1)


def _plain(message: str) -> str:
    """A usage error without the words of the library that found it, and with what was meant."""
    message = message.replace("Value error, ", "").rstrip(".")
    if wrong := re.search(r"'([^']*)' is not one of (.+)", message):
        message += nearest(wrong[1], re.findall(r"'([^']*)'", wrong[2]))
    return message


def _was_interrupted(error: BaseException | None) -> bool:
    """Whether Ctrl-C came while a library was being imported, which then says that it is broken."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__ or error.__context__
    return False


@app.callback(invoke_without_command=True)
def _top(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")] = False,
) -> None:
    if version:
        print(__version__)
        raise typer.Exit


@app.command("learners")
def list_learners() -> None:
    """Every learner by name, with its class and its own options."""
    from quickstudy.cli.tables import learner_table

    learner_table()
