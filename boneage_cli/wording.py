"""Words in messages that depend on numbers."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """Formats a number and its noun, plural unless the number is 1: ``1 row``, ``1,200 rows``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
