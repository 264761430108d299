"""A family of models is nothing but the set of views of a hand that it sees."""

from __future__ import annotations

from boneage_cli.models.names import unknown_name

FAMILIES: dict[str, tuple[str, ...]] = {
    "global": ("hand",),
    "roi": ("carpal", "metaph"),
    "fusion": ("hand", "carpal", "metaph"),
}
VIEWS = FAMILIES["fusion"]


def resolve_family(name: str) -> str:
    """Finds the family that a name means.

    Args:
        name: A key of ``FAMILIES`` in any case, with or without ``cnn`` behind it, as
            HDA_Project's command line takes it: ``globalcnn``, ``ROI_CNN``, ``fusion-cnn``.

    Returns:
        The key of ``FAMILIES``.

    Raises:
        ValueError: No family has that name; the nearest one is named.
    """
    plain = name.strip().lower()
    family = plain.removesuffix("cnn").rstrip("_- ")
    if family not in FAMILIES:
        raise unknown_name("model family", plain, FAMILIES)
    return family
