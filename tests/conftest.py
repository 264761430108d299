"""What the tests share: the demo data, a trained demo model, and the real radiographs if present."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real radiographs beside the checkout, which RSNA's terms keep out of it."""
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not (folder / "boneage-training-dataset.csv").is_file():
        pytest.skip(f"no real radiographs in {folder.parent.name}/{folder.name} beside the checkout")
    return folder
