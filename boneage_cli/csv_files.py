"""CSV tables: written whole, with names of files that need not be UTF-8."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from boneage_cli.files import whole_file

if TYPE_CHECKING:
    import pandas as pd


def write_csv(table: pd.DataFrame, path: Path, float_format: str | None = None) -> None:
    """Writes a table as CSV, without its index.

    Args:
        table: The table.
        path: The file.
        float_format: Format of numbers, such as ``%.4f``; None for all their digits.
    """
    with whole_file(path) as temporary:
        table.to_csv(temporary, index=False, float_format=float_format, errors="surrogateescape")
