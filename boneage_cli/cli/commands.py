"""Commands: strict arguments, and the only place that turns an error into a message."""

from __future__ import annotations

import errno
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption

from boneage_cli.cli.console import fail, warn
from boneage_cli.errors import BoneageError, BoneageWarning

EXIT_FINDINGS = 1
EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143
# The status that shells report for a program whose output pipe was closed by the reader.
EXIT_BROKEN_PIPE = 141

# Of typer's own copy of click, or of click, by typer's version.
_UsageError: Any = next(
    kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "UsageError"
)

_INTERRUPTED = "interrupted; run the same command again"
_MAKE_ROOM = "make room there, or write elsewhere"
_GET_ACCESS = "check its permissions, or choose another place"
_WAYS_OUT = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), _MAKE_ROOM),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), _GET_ACCESS),
}
"""Remedies for system errors, by errno."""
_OUT_OF_MEMORY = (
    "the GPU has too little free memory; take smaller batches (--batch-size, in training --set "
    "training.batch_size=16), fewer pixels, or the CPU (--device cpu, in training --devices cpu)"
)


class Command(TyperCommand):
    """A command that refuses to be given an option twice, unless that adds to the first."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parses the arguments of the command."""
        _refuse_repeated_options(self, ctx, args)
        return super().parse_args(ctx, args)


class Group(TyperGroup):
    """A group of commands; its own options, too, are refused if given twice."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parses the arguments before the name of a command."""
        _refuse_repeated_options(self, ctx, args)
        return super().parse_args(ctx, args)


def _refuse_repeated_options(command: Any, ctx: Any, args: list[str]) -> None:
    order: list[Any] = command.make_parser(ctx).parse_args(args=list(args))[2]
    for parameter in order:
        once = isinstance(parameter, TyperOption) and not parameter.multiple
        if once and not parameter.is_flag and order.count(parameter) > 1:
            raise typer.BadParameter("given twice; give it once", ctx=ctx, param=parameter)


class CommandGroup(Group):
    """The top-level group: accepts ``--debug`` anywhere and prints known errors in one line."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Moves ``--debug`` to the front, so that it also works after a command.

        Refuses empty arguments: as a path, an unset shell variable would be the current folder.
        """
        if "" in args:
            fail("an argument is empty, perhaps by an unset variable; fill it in or leave it out")
            raise typer.Exit(EXIT_BAD_INPUT)
        if "--debug" in args:
            args = ["--debug", *(argument for argument in args if argument != "--debug")]
        with _usage_errors_in_one_line():
            return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Runs the command; a BoneageError becomes one line and exit status 2."""
        try:
            with _warnings_in_one_line(), _usage_errors_in_one_line():
                return super().invoke(ctx)
        except BoneageError as error:
            if ctx.params.get("debug"):
                raise
            fail(str(error))
            raise typer.Exit(EXIT_BAD_INPUT) from None
        except KeyboardInterrupt as interrupt:
            fail(str(interrupt) or _INTERRUPTED)
            raise typer.Exit(_interrupted_status(interrupt)) from None
        except SystemExit as end:
            if end.code != EXIT_TERMINATED:
                raise
            fail(_INTERRUPTED)
            raise typer.Exit(EXIT_TERMINATED) from None
        except OSError as error:
            if error.filename is None:
                _leave_standard_output()
            if isinstance(error, BrokenPipeError):
                # The reader of the pipe, such as head, has closed it: not an error.
                raise typer.Exit(EXIT_BROKEN_PIPE) from None
            # Commands check that outputs are writable; this is for disks that fill up meanwhile.
            if ctx.params.get("debug"):
                raise
            place = error.filename or "output"
            way_out = _WAYS_OUT.get(error.errno or 0, "fix this, then run again")
            fail(f"{place}: {error.strerror or error}; {way_out}")
            raise typer.Exit(EXIT_BAD_INPUT) from None
        except ModuleNotFoundError as error:
            missing = (error.name or "").partition(".")[0]
            if missing in ("", "boneage_cli") or ctx.params.get("debug"):
                raise
            fail(f"{missing} is not installed; this needs the full installation (README, Install)")
            raise typer.Exit(EXIT_BAD_INPUT) from None
        except RuntimeError as error:
            if ctx.params.get("debug"):
                raise
            # torch's error, compared by name so that commands without torch need not import it.
            if type(error).__name__ == "OutOfMemoryError":
                fail(_OUT_OF_MEMORY)
            # Path.resolve's error before Python 3.13, which raises an OSError.
            elif str(error).startswith("Symlink loop"):
                fail(f"{error}; remove this link, or name another file")
            else:
                raise
            raise typer.Exit(EXIT_BAD_INPUT) from None


@contextmanager
def _warnings_in_one_line() -> Iterator[None]:
    with warnings.catch_warnings():
        show = warnings.showwarning
        # Each warning is printed once, even if it is raised again.
        told: set[str] = set()

        def show_in_one_line(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if issubclass(category, BoneageWarning):
                if str(message) not in told:
                    told.add(str(message))
                    warn(str(message))
            else:
                show(message, category, filename, lineno, file, line)

        warnings.showwarning = show_in_one_line
        warnings.simplefilter("always", BoneageWarning)
        yield


def _leave_standard_output() -> None:
    """Redirects standard output to the null device, because Python flushes it again at exit."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def _usage_errors_in_one_line() -> Iterator[None]:
    try:
        yield
    except _UsageError as error:
        # Raised for a command without arguments, to show its help.
        if type(error).__name__ == "NoArgsIsHelpError":
            raise
        text = error.format_message().replace("Value error, ", "").rstrip(".")
        end = " See" if text.endswith("?") else "; see"
        path = error.ctx.command_path if error.ctx else "boneage"
        option = getattr(error, "option_name", "")
        if setting := _setting_named(option, path):
            fail(f"no such option: {option}; did you mean --set {setting}=…?")
        else:
            fail(f"{text[:1].lower()}{text[1:]}{end} '{path} --help'")
        raise typer.Exit(EXIT_BAD_INPUT) from None


def _interrupted_status(interrupt: BaseException) -> int:
    """Returns the exit status for SIGTERM if that began the interrupt, else that for Ctrl-C."""
    cause: BaseException | None = interrupt
    while cause is not None:
        if isinstance(cause, SystemExit) and cause.code == EXIT_TERMINATED:
            return EXIT_TERMINATED
        cause = cause.__context__
    return EXIT_INTERRUPTED


def _setting_named(option: str, command: str) -> str | None:
    """Returns the setting that an unknown option of a command that trains is named after."""
    if not option or command.split()[-1] not in ("train", "sweep"):
        return None
    from boneage_cli.core.config import Experiment
    from boneage_cli.core.settings_errors import flatten

    name = option.lstrip("-").replace("-", "_")
    keys = (key for key, _ in flatten(Experiment().model_dump()))
    return next((key for key in keys if key.endswith(f".{name}")), None)
