"""Numbers, and words that depend on them, in messages and tables."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """Formats a number and its noun, plural unless the number is 1: ``1 row``, ``1,200 rows``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def decimal(value: float, digits: int, sign: str = "") -> str:
    """Formats a number with some decimals; what rounds to zero has no minus sign.

    Args:
        value: The number.
        digits: Number of decimals.
        sign: ``+`` to show the sign of numbers above zero, too.
    """
    # Adding zero turns -0.0 into 0.0.
    return f"{round(value, digits) + 0.0:{sign}.{digits}f}"


def three_digits(value: float) -> str:
    """Formats a number with three significant digits, or all digits before the point."""
    return f"{value:,.0f}" if value >= 99.95 else f"{value:#.3g}"
