"""Words of messages that depend on numbers."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """A number and its noun, which is plural unless there is one: ``1 row``, ``1,200 rows``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
