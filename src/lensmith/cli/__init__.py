"""The command line: the list of verbs, loaded one at a time, and the place where errors become messages.

`lensmith --help` reads only the table below; a verb's module (and through it its room) is imported when it is called.
"""

import contextlib
import difflib
import errno
import os
import signal
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, NoReturn

if "serve" in sys.argv[1:3]:
    # Before the imports that take time: `systemctl reload` of a service that has just been started must not end it.
    # Nothing has been read yet, so nothing needs to be read again.
    for _name in ("SIGHUP", "SIGUSR1", "SIGUSR2"):
        with contextlib.suppress(AttributeError, ValueError):  # another system, or not in the main thread
            signal.signal(getattr(signal, _name), signal.SIG_IGN)

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from lensmith.core.machine import cache_dir, launched_ranks
from lensmith.core.standard_streams import open_closed_streams, tolerate_full_stderr
from lensmith.core.stop_handler import StopHandler
from lensmith.core.version import __version__
from lensmith.errors import (
    EXTRA_OF_PACKAGE,
    FallbackWarning,
    LensmithError,
    MissingPackageError,
    OutOfMemoryError,
    OutputError,
    UnmaintainedWarning,
)
from lensmith.imaging.silence import silence_pillow

VERBS = {
    "doctor": "Check this machine, with a remedy for each problem.",
    "models": "List the backbones.",
    "data": "Fetch, import, check and split image folders; look after their labels.",
    "review": "Look at pictures in the browser, and decide on their labels.",
    "recipe": "Print and check the settings of a training.",
    "train": "Fine-tune a pretrained backbone on labelled images.",
    "track": "Show tracked runs, and send what did not arrive.",
    "distill": "Train a small network on the answers of a trained one.",
    "cache": "List and clear what runs have cached.",
    "export": "Turn a run into a bundle that a service can run.",
    "bundle": "Show, verify and compare bundles.",
    "registry": "Manage bundles as versions of named models, and aliases.",
    "evaluate": "Evaluate a bundle on labelled images.",
    "predict": "Classify many images into a table.",
    "serve": "Serve a bundle over HTTP, with a page to drop an image on.",
    "feedback": "Show, export and delete uploads stored by a service.",
    "rollout": "Run a canary release of a new version beside the champion.",
    "update": "Train a model again with new pictures, compare, and promote it.",
    "pipeline": "Run the stages from images to release that have changed.",
    "deploy": "Write files for nginx, systemd, Docker, Compose, Prometheus.",
    "token": "Make a token with which somebody may call the service.",
    "bench": "Load-test a service.",
    "demo": "Run every step on real images, from fetching to HTTP.",
}
"""Verb → its line in `lensmith --help`. The command itself is `command` in lensmith.cli.VERB."""


class _Verbs(TyperGroup):
    """A group that imports a verb's module when the verb is called; until then it is a name and a help line."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return TyperCommand(cmd_name, help=VERBS[cmd_name]) if cmd_name in VERBS else None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, *rest = args
        if name not in VERBS and ctx.resilient_parsing:  # completing a line
            return None, None, rest
        if name not in VERBS:
            near = difflib.get_close_matches(name, VERBS, n=1)
            ctx.fail(f"There is no verb {name!r}." + (f" Did you mean {near[0]!r}?" if near else ""))
        return name, import_module(f"lensmith.cli.{name}").command, rest


# Plain text, for every verb: typer's boxes take a third of an 80-column terminal, and importing rich takes time.
_app = typer.Typer(
    cls=_Verbs,
    rich_markup_mode=None,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)


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

    `lensmith VERB --help` describes each verb and its options.
    """


RESUMABLE = (75, 129, 130)
"""Exit codes of a run that a signal stopped, and that is saved; see `training.signals`."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line.

    Exits with 0, 2 on bad input, 3 at a gate, 5 out of memory, 1 on a bug of lensmith, 130 on Ctrl-C.
    """
    if argv is None:
        _read_names_as_utf8()
    args = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in args
    args = [arg for arg in args if arg != "--debug"]
    with contextlib.suppress(ValueError, AttributeError):  # not in the main thread; another system
        # A parent that ignores it hands that on: exit codes of children would be lost.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    open_closed_streams()
    if args[:1] != ["serve"]:  # whose log reports and counts the lines that it loses
        tolerate_full_stderr()
    warnings.showwarning = _show_warning
    for stream in (sys.stdout, sys.stderr):  # whatever the locale: names of files and classes, a dash, a multiplication
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    silence_pillow()
    # An exception lets unfinished files be removed; verbs that can resume have handlers of their own.
    with StopHandler() as stop:
        _call_verb(args, stop, debug)


def _read_names_as_utf8() -> None:
    """Start this program again where the locale has Python read names of files in another encoding.

    In a Latin-1 locale the class `Äpfel` would be another label than elsewhere, without a word. What is printed keeps
    the locale's encoding.
    """
    if sys.getfilesystemencoding() == "utf-8" or os.environ.get("PYTHONUTF8") == "1" or sys.flags.ignore_environment:
        return
    os.environ["PYTHONUTF8"] = "1"
    if sys.stdout is not None:
        os.environ.setdefault("PYTHONIOENCODING", f"{sys.stdout.encoding}:backslashreplace")
    os.execv(sys.executable, sys.orig_argv)


def _call_verb(args: Sequence[str], stop: StopHandler, debug: bool) -> NoReturn:
    """Call the verb and exit with its code; errors become messages."""
    try:
        sys.exit(get_command(_app).main(args, prog_name="lensmith", standalone_mode=False) or 0)
    except Exception as error:
        if hasattr(error, "format_message"):  # typer's: an unknown flag, a missing argument, a bad value
            with contextlib.suppress(OSError):  # standard error is full, and the exit code tells enough
                error.show()  # type: ignore[attr-defined]
            _report_json("UsageError", error.format_message(), args)
            sys.exit(error.exit_code)  # type: ignore[attr-defined]
        if debug:
            raise
        known = _as_lensmith_error(error)
        is_saved = known is not None and known.exit_code in RESUMABLE
        if stop.received is not None and not is_saved:  # a library that was being imported made another exception of it
            _report("Stopped", "stopped; unfinished files were removed.", args)
            sys.exit(128 + stop.received)
        if known is not None:
            _report(type(known).__name__, str(known), args)
            sys.exit(known.exit_code)
        fault = f"a fault of lensmith itself, {type(error).__name__}: {error}"
        _report("Fault", f"{fault}\nRun the same command with --debug and report what it prints.", args)
        sys.exit(1)
    except SystemExit as stopped:
        if stopped.code in (130, 128 + signal.SIGTERM):
            _report("Stopped", "stopped; unfinished files were removed.", args)
        raise


def _show_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, file: Any = None, line: Any = None
) -> None:
    """Print a warning; one of ours without its line of code."""
    ours = issubclass(category, (FallbackWarning, UnmaintainedWarning))
    text = f"lensmith: {message}\n" if ours else warnings.formatwarning(message, category, filename, lineno, line)
    print(text, end="", file=file or sys.stderr)


def _report(kind: str, message: str, args: Sequence[str]) -> None:
    with contextlib.suppress(LensmithError):
        if launched_ranks()[0] != 0:  # one of several ranks reports
            return
    with contextlib.suppress(OSError):  # a terminal that was closed
        print(f"lensmith: {message}", file=sys.stderr)
    _report_json(kind, message, args)


def _report_json(kind: str, message: str, args: Sequence[str]) -> None:
    if "--json" in args:
        from lensmith.cli.output import print_json

        with contextlib.suppress(OSError):  # standard output itself may be what is full
            print_json({"error": kind, "message": message})


def _as_lensmith_error(error: Exception) -> LensmithError | None:
    """An error that a user can act on; None: the fault is ours."""
    if isinstance(error, LensmithError):
        return error
    if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] in EXTRA_OF_PACKAGE:
        return MissingPackageError.of(error)
    if (out_of_memory := OutOfMemoryError.of(error)) is not None:
        return out_of_memory
    if isinstance(error, OSError) and error.errno in _REMEDIES:
        return OutputError(
            f"Room to read and write was expected at {error.filename or 'the output path'}.",
            f"The system reported: {error.strerror}.",
            _REMEDIES[error.errno].format(elsewhere=_elsewhere(error.filename)),
        )
    return None


def _elsewhere(path: object) -> str:
    """What makes lensmith write to another place than `path`."""
    try:
        if Path(os.fsdecode(path)).is_relative_to(cache_dir()):  # type: ignore[arg-type]
            return "name another cache folder with LENSMITH_CACHE"
    except TypeError:  # no path at all, or a descriptor's number
        pass
    return "name another path (`lensmith VERB --help` lists the options)"


_REMEDIES = {
    errno.ENOSPC: "Free some space, or {elsewhere}; then run the same command again.",
    errno.EDQUOT: "Free some of your quota, or {elsewhere}; then run the same command again.",
    errno.EACCES: "Give yourself the rights, or {elsewhere}.",
    errno.EPERM: "Give yourself the rights, or {elsewhere}.",
    errno.ENOTDIR: "A file is where a folder should be: {elsewhere}.",
    errno.EEXIST: "A file is where a folder should be: {elsewhere}.",
    errno.EISDIR: "A folder is where a file should be: {elsewhere}.",
    errno.ENAMETOOLONG: "The name is too long: {elsewhere}.",
    errno.ELOOP: "Symbolic links lead in a circle: {elsewhere}.",
    errno.EROFS: "This file system is read-only: {elsewhere}.",
    errno.EMFILE: "Raise the limit on open files: ulimit -n 4096",
}
