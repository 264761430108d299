"""Ages: plausible ranges, parsing and formatting."""

from __future__ import annotations

import re
from collections.abc import Collection

from boneage_cli.errors import BoneageError

MONTHS_PER_YEAR = 12
OLDEST_PERSON = 1440.0
"""Months."""
OLDEST_BONE_AGE = 240.0
"""Months. RSNA's labels end at 228, the Greulich-Pyle atlas at 19 years."""
YEARS_AT_MOST = 20.0
"""If the oldest age of a data set is at most this, its ages are in years: no set of children's
radiographs ends at 20 months."""
# Fewer ages than this may all be of infants.
_ENOUGH_AGES = 10

_NUMBER = r"\d+(?:\.\d+)?"
_AGE = re.compile(
    rf"(?P<sign>-?)\s*"
    rf"(?:(?P<years>{_NUMBER})\s*(?:years?|yrs?|y))?\s*,?\s*"
    rf"(?:(?P<months>{_NUMBER})\s*(?:months?|mos?|m)?)?",
    re.IGNORECASE,
)


def years_and_months(months: float) -> str:
    """Formats an age to the nearest whole month, as ``10 years 6 months``.

    A tie is rounded to the even month: 126.5 becomes 10 years 6 months. Both words are always
    plural, which keeps the text easy to parse.

    Args:
        months: The age in months, finite; negative ages start with a minus sign.
    """
    whole = round(months)
    years, rest = divmod(abs(whole), MONTHS_PER_YEAR)
    return f"{'-' if whole < 0 else ''}{years} years {rest} months"


def parse_age(text: str) -> float:
    """Reads an age in months: ``10 years 6 months``, ``10y 6m``, ``126.5 months`` or ``126.5``.

    Raises:
        BoneageError: The text is not an age.
    """
    match = _AGE.fullmatch(text.strip())
    if not match or (match["years"] is None and match["months"] is None):
        raise BoneageError(
            f"'{text}' is not an age; write months (126.5) or years and months (10 years 6 months)"
        )
    months = float(match["years"] or 0) * MONTHS_PER_YEAR + float(match["months"] or 0)
    return -months if match["sign"] else months


def is_bone_age(months: float) -> bool:
    """Whether it is a possible bone age: above 0 and up to ``OLDEST_BONE_AGE``."""
    return 0 < months <= OLDEST_BONE_AGE


def is_childs_age(months: float) -> bool:
    """Whether it is a possible age of a patient: 0 to ``OLDEST_PERSON``; archives have adults."""
    return 0 <= months <= OLDEST_PERSON


def look_like_years(bone_ages: Collection[float]) -> bool:
    """Whether the known bone ages of a data set, which should be months, probably are years.

    Args:
        bone_ages: Possible bone ages, see ``is_bone_age``.
    """
    return len(bone_ages) >= _ENOUGH_AGES and max(bone_ages) <= YEARS_AT_MOST


def look_like_other_units(age: float, bone_age: float) -> bool:
    """Whether a child's age probably was given in years instead of months, or the reverse.

    A child's bone age is never 5 years ahead of its chronological age. The reverse is not checked:
    the bone ages of the adults in archives are always behind.

    Args:
        age: The stated chronological age, months.
        bone_age: Months.
    """
    return bone_age - age > 5 * MONTHS_PER_YEAR or age > 100 * MONTHS_PER_YEAR


def doubt_of_age(age: float, bone_age: float) -> str | None:
    """Returns why a chronological age is implausible given the bone age, or None.

    Args:
        age: The stated chronological age, months.
        bone_age: Months.
    """
    if look_like_other_units(age, bone_age):
        return (
            f"the bone age is {abs(bone_age - age):.0f} months from the child's age of {age:g} "
            "months; are those years instead of months, or the reverse?"
        )
    if age > OLDEST_BONE_AGE:
        years = age / MONTHS_PER_YEAR
        return f"an age of {years:.0f} years; bone age is not informative once growth has ended"
    return None


def parse_childs_age(text: str) -> float:
    """Reads a chronological age in months; see ``parse_age``.

    Raises:
        BoneageError: The text is not an age, or not a possible one.
    """
    months = parse_age(text)
    if not is_childs_age(months):
        raise BoneageError(f"--age {text}: nobody is {months:g} months old; write 10y 6m, or 126")
    return months
