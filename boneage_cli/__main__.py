"""The entry point: ``boneage`` and ``python -m boneage_cli``."""

from __future__ import annotations


def main() -> None:
    """Runs the command line."""
    from boneage_cli.cli.app import app

    app()


if __name__ == "__main__":
    main()
