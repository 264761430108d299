"""The entry point: ``boneage`` and ``python -m boneage_cli``."""

from __future__ import annotations

import io
import os
import signal
import sys
from pathlib import Path
from types import FrameType


def main() -> None:
    """Runs the command line."""
    # A stream that the caller has closed is None, and the next file opened would take its number.
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115
    from boneage_cli.cli.app import app

    signal.signal(signal.SIGTERM, _end)
    for stream in (sys.stdout, sys.stderr):
        # Characters that the terminal's encoding lacks are printed as question marks, and names of
        # files that are not UTF-8 as they are, instead of errors.
        if isinstance(stream, io.TextIOWrapper):
            is_utf8 = stream.encoding.lower() == "utf-8"
            stream.reconfigure(errors="surrogateescape" if is_utf8 else "replace")
    app()


def _end(number: int, frame: FrameType | None) -> None:
    # Raises like an interrupt, so that cleanup code removes half-written files.
    raise SystemExit(128 + number)


if __name__ == "__main__":
    main()
