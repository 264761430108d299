"""The entry point: ``boneage`` and ``python -m boneage_cli``."""

from __future__ import annotations

import io
import signal
import sys
from types import FrameType


def main() -> None:
    """Runs the command line."""
    from boneage_cli.cli.app import app

    signal.signal(signal.SIGTERM, _end)
    for stream in (sys.stdout, sys.stderr):
        # What a terminal's character set lacks becomes a question mark there, and no failure.
        if isinstance(stream, io.TextIOWrapper) and stream.encoding.lower() != "utf-8":
            stream.reconfigure(errors="replace")
    app()


def _end(number: int, frame: FrameType | None) -> None:
    # As an interrupt does, so that nothing half-written stays.
    raise SystemExit(128 + number)


if __name__ == "__main__":
    main()
