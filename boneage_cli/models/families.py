"""Model families: named sets of the views of a hand that a network takes as input."""

from __future__ import annotations

from boneage_cli.models.names import unknown_name

FAMILIES: dict[str, tuple[str, ...]] = {
    "global": ("hand",),
    "carpal": ("carpal",),
    "metacarpal": ("metaph",),
    "roi": ("carpal", "metaph"),
    "fusion": ("hand", "carpal", "metaph"),
}
VIEWS = FAMILIES["fusion"]


def resolve_family(name: str) -> str:
    """Resolves a name to a family.

    Args:
        name: A key of ``FAMILIES`` in any case, with or without the suffix ``cnn``, as in
            HDA_Project's command line: ``globalcnn``, ``ROI_CNN``, ``fusion-cnn``.

    Returns:
        The key of ``FAMILIES``.

    Raises:
        ValueError: Unknown family; the message suggests the nearest name.
    """
    plain = name.strip().lower()
    family = plain.removesuffix("cnn").rstrip("_- ")
    if family not in FAMILIES:
        raise unknown_name("model family", plain, FAMILIES)
    return family
