"""The command line: the list of verbs, loaded one at a time, and the place where errors become plain words.

`lensmith --help` reads only the table below; a verb's module (and through it its room) is imported when it is called.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from typing import Annotated, Any, TextIO

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from lensmith.core.version import __version__
from lensmith.errors import EXTRA_OF_PACKAGE, FallbackWarning, LensmithError, MissingPackageError, OutputError

VERBS = {
    "doctor": "Look at this machine, and say how to mend what is wrong.",
    "models": "List the backbones one can name.",
    "data": "Fetch, check and split image folders.",
    "recipe": "Print and check the settings of a training.",
    "train": "Fine-tune a pretrained backbone on a folder of labelled images.",
    "track": "Look at tracked runs, and send what did not arrive.",
    "distill": "Train a smaller network on what a trained one answers.",
    "cache": "List and clear what is kept from run to run.",
    "export": "Turn a run into a bundle that a service can run.",
    "bundle": "Look at a bundle, verify it, compare two.",
    "registry": "Keep bundles as versions of named models, and say which of them serves.",
    "evaluate": "Judge a bundle on labelled images, with the engine that serves.",
    "predict": "Classify many images into a table.",
    "serve": "Answer over HTTP, with a page to drop an image on.",
    "feedback": "Look at, export and delete uploads that a service has kept.",
    "rollout": "Try a version beside the champion, on a share of its requests.",
    "pipeline": "From images to users in one command, and only what has changed.",
    "deploy": "Write the files of a deployment: nginx, systemd, Docker, Compose, Prometheus.",
    "token": "Make a token with which somebody may call the service.",
    "bench": "Load-test a service.",
    "demo": "The whole way on real images, from fetching to HTTP.",
}
"""Verb → its line in `lensmith --help`. The command itself is `command` in lensmith.cli.VERB."""


class _Verbs(TyperGroup):
    """A group whose verbs are only names and help lines until one of them is called."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return TyperCommand(cmd_name, help=VERBS[cmd_name]) if cmd_name in VERBS else None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, _, rest = super().resolve_command(ctx, args)
        return name, import_module(f"lensmith.cli.{name}").command, rest


# Plain help here: drawing boxes would double the time of `lensmith --help`. Each verb's own help is drawn.
_app = typer.Typer(cls=_Verbs, rich_markup_mode=None, add_completion=False, no_args_is_help=True)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"lensmith {__version__}")
        raise typer.Exit


@_app.callback()
def _lensmith(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error; works anywhere on the line.")
    ] = False,
) -> None:
    """From a folder of labelled images to a fine-tuned classifier and a classification service.

    `lensmith VERB --help` tells more about each.
    """


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; exits with 0, 2 on bad input, 3 at a gate, 1 on a fault of lensmith, 130 on Ctrl-C."""
    args = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in args
    args = [arg for arg in args if arg != "--debug"]
    with contextlib.suppress(ValueError):  # not in the main thread
        # Ending by exception lets half-made files be removed; verbs that can go on later have handlers of their own.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    warnings.showwarning = _show_warning
    try:
        get_command(_app).main(args, prog_name="lensmith")
    except Exception as error:
        if debug:
            raise
        plain = _in_plain_words(error)
        if plain is not None:
            _report(type(plain).__name__, str(plain), "--json" in args)
            sys.exit(plain.exit_code)
        fault = f"a fault of lensmith itself, {type(error).__name__}: {error}"
        advice = "Run the same command with --debug and report what it prints."
        _report("Fault", f"{fault}\n{advice}", "--json" in args)
        sys.exit(1)
    except SystemExit as stopped:
        if stopped.code in (130, 128 + signal.SIGTERM):
            _report("Stopped", "stopped; nothing half-made is left.", "--json" in args)
        raise


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Ours without the place in the code, which tells users nothing."""
    ours = issubclass(category, FallbackWarning)
    text = f"lensmith: {message}\n" if ours else warnings.formatwarning(message, category, filename, lineno, line)
    print(text, end="", file=file or sys.stderr)


def _report(kind: str, message: str, as_json: bool) -> None:
    if os.environ.get("RANK", "0") != "0":  # of several processes that train together one speaks
        return
    print(f"lensmith: {message}", file=sys.stderr)
    if as_json:
        from lensmith.cli.output import print_json

        with contextlib.suppress(OSError):  # standard output itself may be what is full
            print_json({"error": kind, "message": message})


def _in_plain_words(error: Exception) -> LensmithError | None:
    """The error a user can act on, or None where the fault is ours."""
    if isinstance(error, LensmithError):
        return error
    if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] in EXTRA_OF_PACKAGE:
        return MissingPackageError.of(error)
    if isinstance(error, MemoryError) or any(sign in str(error) for sign in _NO_MEMORY):
        return OutputError(
            "More memory was expected.",
            f"It ran out ({' '.join(str(error).split()) or type(error).__name__}).",
            "What was saved before is kept; use smaller images, or a machine with more memory.",
        )
    if isinstance(error, OSError) and error.errno in _REMEDIES:
        return OutputError(
            f"Room to read and write was expected at {error.filename or 'the output path'}.",
            f"The system said: {error.strerror}.",
            _REMEDIES[error.errno],
        )
    return None


_NO_MEMORY = ("Failed to allocate memory", "std::bad_alloc")  # ONNX Runtime, whose exceptions have no common class

_REMEDIES = {
    errno.ENOSPC: "Free some space, or write elsewhere with --out; then run the same command again.",
    errno.EDQUOT: "Free some of your quota, or write elsewhere with --out; then run the same command again.",
    errno.EACCES: "Give yourself the rights, or write elsewhere with --out.",
    errno.EPERM: "Give yourself the rights, or write elsewhere with --out.",
    errno.ENOTDIR: "A file stands where a folder should be; write elsewhere with --out.",
    errno.EROFS: "Write elsewhere with --out; this file system is read-only.",
    errno.EMFILE: "Raise the limit on open files: ulimit -n 4096",
}
