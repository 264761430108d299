"""The entry point: ``boneage`` and ``python -m boneage_cli``."""

from __future__ import annotations

import signal
from types import FrameType


def main() -> None:
    """Runs the command line."""
    from boneage_cli.cli.app import app

    signal.signal(signal.SIGTERM, _end)
    app()


def _end(number: int, frame: FrameType | None) -> None:
    # As an interrupt does, so that nothing half-written stays.
    raise SystemExit(128 + number)


if __name__ == "__main__":
    main()
