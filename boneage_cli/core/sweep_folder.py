"""The table in a sweep's folder, ``table.csv``, which names its runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from boneage_cli.errors import BoneageError

if TYPE_CHECKING:
    import pandas as pd

TABLE = "table.csv"
TABLE_MARKDOWN = "table.md"


def read_sweep(folder: Path) -> pd.DataFrame | None:
    """Reads the table of a sweep.

    Args:
        folder: The sweep's folder; it need not exist.

    Returns:
        The table, with the runs in the order in which they were trained; None if there is no
        ``table.csv``.

    Raises:
        BoneageError: The file there is not the table of a sweep, or cannot be read.
    """
    import pandas as pd

    path = folder / TABLE
    try:
        table = pd.read_csv(path, dtype={"run": str}, encoding_errors="surrogateescape")
        return table[["run", "number", "error"]].sort_values("number")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError):
        raise BoneageError(
            f"{path}: not a table of this version of sweep; move it away, or name another folder"
        ) from None
