"""Promises about the documents: what they point at is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    path.relative_to(ROOT)
    for pattern in ("*.md", "docs/*.md", "data/README.md", "boneage_cli/weights/*.md")
    for path in ROOT.glob(pattern)
)
# Links and pictures in Markdown, and pictures in HTML, but no addresses.
_LINK = re.compile(r"(?:\]\(|src=\")(?!https?:|mailto:)([^)\s\"]+)")
_FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def anchors(document: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", _FENCE.sub("", document.read_text()), re.MULTILINE)
    found: set[str] = set()
    for heading in headings:
        plain = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        numbers = (f"{plain}-{number}" for number in range(1, 100))
        found.add(plain if plain not in found else next(n for n in numbers if n not in found))
    return found


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_every_link_of_a_document_leads_somewhere(document: Path) -> None:
    for link in _LINK.findall((ROOT / document).read_text()):
        path, _, anchor = link.partition("#")
        target = (ROOT / document.parent / path).resolve() if path else ROOT / document
        assert target.exists(), f"{document}: {link}"
        if anchor:
            assert anchor in anchors(target), f"{document}: {link}"
