"""Ages: what they can be, and how people write them."""

from __future__ import annotations

import re

from boneage_cli.errors import BoneageError

MONTHS_PER_YEAR = 12
OLDEST_PERSON = 1440.0
"""Months."""
OLDEST_BONE_AGE = 240.0
"""Months. RSNA's labels end at 228, the Greulich-Pyle atlas at 19 years."""
YEARS_AT_MOST = 20.0
"""No set of children's radiographs has this many months as its oldest; as years it is usual."""

_NUMBER = r"\d+(?:\.\d+)?"
_AGE = re.compile(
    rf"(?P<sign>-?)\s*"
    rf"(?:(?P<years>{_NUMBER})\s*(?:years?|yrs?|y))?\s*,?\s*"
    rf"(?:(?P<months>{_NUMBER})\s*(?:months?|mos?|m)?)?",
    re.IGNORECASE,
)


def years_and_months(months: float) -> str:
    """An age to the nearest whole month, as ``10 years 6 months``.

    A tie goes to the even month, so that 126.5 reads as 10 years 6 months. Both words stay in the
    plural, which keeps the text easy to parse.

    Args:
        months: The age in months, finite; below zero the text starts with a minus sign.
    """
    whole = round(months)
    years, rest = divmod(abs(whole), MONTHS_PER_YEAR)
    return f"{'-' if whole < 0 else ''}{years} years {rest} months"


def parse_age(text: str) -> float:
    """Reads an age in months: ``10 years 6 months``, ``10y 6m``, ``126.5 months`` or ``126.5``.

    Raises:
        BoneageError: The text is no age.
    """
    match = _AGE.fullmatch(text.strip())
    if not match or (match["years"] is None and match["months"] is None):
        raise BoneageError(
            f"'{text}' is no age; write months (126.5) or years and months (10 years 6 months)"
        )
    months = float(match["years"] or 0) * MONTHS_PER_YEAR + float(match["months"] or 0)
    return -months if match["sign"] else months


def is_bone_age(months: float) -> bool:
    """Whether a bone has it at some time: above 0 and up to ``OLDEST_BONE_AGE``."""
    return 0 < months <= OLDEST_BONE_AGE


def is_childs_age(months: float) -> bool:
    """Whether somebody may be as old, in the archives of clinics: up to ``OLDEST_PERSON``."""
    return 0 <= months <= OLDEST_PERSON


def look_like_other_units(age: float, bone_age: float) -> bool:
    """Whether a child's age is rather in years, or in months where years are meant.

    Children's bone ages are not 5 years ahead of their ages; those of adults lie behind, in any
    archive.

    Args:
        age: How old the child is said to be, months.
        bone_age: Months.
    """
    return bone_age - age > 5 * MONTHS_PER_YEAR or age > 100 * MONTHS_PER_YEAR


def doubt_of_age(age: float, bone_age: float) -> str | None:
    """What is odd about a child's age beside the bone age; None where nothing is.

    Args:
        age: How old the child is said to be, months.
        bone_age: Months.
    """
    if look_like_other_units(age, bone_age):
        return (
            f"the bone age is {abs(bone_age - age):.0f} months from the child's age of {age:g}; is "
            "that years instead of months, or the reverse?"
        )
    if age > OLDEST_BONE_AGE:
        years = age / MONTHS_PER_YEAR
        return f"an age of {years:.0f} years; bones say nothing of it once growth has ended"
    return None


def parse_childs_age(text: str) -> float:
    """Reads how old a child is, in months, see ``parse_age``.

    Raises:
        BoneageError: The text is no age, or nobody is as old.
    """
    months = parse_age(text)
    if not is_childs_age(months):
        raise BoneageError(f"--age {text}: nobody is {months:g} months old; write 10y 6m, or 126")
    return months
