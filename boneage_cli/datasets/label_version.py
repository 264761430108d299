"""Detects the version of a test split's labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

# The RSNA challenge's test set: 100 boys, then 100 girls.
RSNA_TEST_IDS = range(4360, 4560)
# The first of them has 168.93 months in the official labels and 164 in the integer re-exports.
_RSNA_FIRST_OFFICIAL_MONTHS = 168.93


def label_version(test: pd.DataFrame) -> str:
    """Names the version of a test split's labels, which every metric on it must state.

    Two versions of the RSNA test labels circulate; they differ by 2.78 months on average and by at
    most 26 months, so errors measured on them must not be compared.

    Args:
        test: The rows of the test split, with ``id`` and ``boneage``.

    Returns:
        ``"official-decimal"`` (id 4360 is 168.93 months, and no more than half of RSNA's test ids
        have whole months), ``"integer"`` (whole months throughout), ``"decimal"`` (anything else),
        or ``"none"`` (nothing is labelled).
    """
    labelled = test[test["boneage"].notna()]
    if labelled.empty:
        return "none"
    rsna = labelled[labelled["id"].isin([str(number) for number in RSNA_TEST_IDS])]
    months = (labelled if rsna.empty else rsna)["boneage"].astype(float)
    whole = months == months.round()
    if bool(whole.all()):
        return "integer"
    first = rsna.loc[rsna["id"] == str(RSNA_TEST_IDS[0]), "boneage"]
    is_official = bool(((first - _RSNA_FIRST_OFFICIAL_MONTHS).abs() < 0.01).any())
    return "official-decimal" if is_official and whole.mean() <= 0.5 else "decimal"
