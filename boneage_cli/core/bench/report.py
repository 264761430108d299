"""Rankings and plots of the networks in several tables of ``boneage bench``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from boneage_cli.core.bench.benchmark import BENCH_TABLE, COLUMNS
from boneage_cli.csv_files import write_csv
from boneage_cli.errors import BoneageError
from boneage_cli.files import explaining_write_errors

# A column of ``ranking``, whether larger is better, and the heading of its table.
RANKINGS = (
    ("images_per_s", True, "by images/s at the best batch size"),
    ("single_ms", False, "by time of a batch of one image"),
    ("images_per_s_per_million", True, "by images/s per million parameters"),
)
_NUMBERS = ("batch_size", "mean_ms", "ms_per_image", "images_per_s", "parameters")
# Columns that influence speed besides the network, the most important first.
_TELLING = ("pixels", "hardware", "backend", "precision")


def read_results(paths: Sequence[Path]) -> pd.DataFrame:
    """Reads tables of ``boneage bench``.

    Args:
        paths: Folders that it wrote, or their CSV files.

    Returns:
        All rows, with ``source``, the name of their table, and ``network``: the model's name, those
        of image size, hardware, backend and precision that differ between rows, and the source if
        the name would otherwise be ambiguous.

    Raises:
        BoneageError: One of them is not such a table.
    """
    files = [path / BENCH_TABLE if path.is_dir() else path for path in paths]
    # The folder's name, because bench always gives its table the same file name.
    names = {file: file.parent.name if file.name == BENCH_TABLE else file.stem for file in files}
    tables = [
        _read(file).assign(source=name if list(names.values()).count(name) == 1 else str(file))
        for file, name in names.items()
    ]
    return named(pd.concat(tables, ignore_index=True))


def named(table: pd.DataFrame) -> pd.DataFrame:
    """Adds ``network`` to rows of ``COLUMNS`` and ``source``, as described in ``read_results``."""
    name = table["model"].astype(str)
    for column in _TELLING:
        # Otherwise differences of image size or machine would look like those of networks.
        if table[column].nunique() > 1:
            name = name + ", " + table[column].astype(str)
    several = table["source"].groupby(name).transform("nunique") > 1
    return table.assign(network=name.where(~several, name + ", " + table["source"].astype(str)))


def ranking(table: pd.DataFrame) -> pd.DataFrame:
    """Ranks the networks by images/s.

    Args:
        table: Rows as ``read_results`` gives them.

    Returns:
        Per ``network``: ``parameters``, ``best_batch``, the batch size with the most images/s, its
        ``images_per_s``, ``images_per_s_per_million`` parameters, and ``single_ms``, the mean time
        of a batch of one image; NaN if batch size 1 was not timed.
    """
    rows = []
    for network, part in table.groupby("network", sort=False):
        best = part.sort_values("images_per_s").iloc[-1]
        single = part.loc[part["batch_size"] == 1, "mean_ms"]
        rows.append(
            {
                "network": network,
                "parameters": int(best["parameters"]),
                "best_batch": int(best["batch_size"]),
                "images_per_s": float(best["images_per_s"]),
                "images_per_s_per_million": 1e6 * best["images_per_s"] / best["parameters"],
                "single_ms": single.iloc[0] if len(single) else float("nan"),
            }
        )
    return by(pd.DataFrame(rows), *RANKINGS[0][:2])


def by(networks: pd.DataFrame, column: str, more_is_better: bool) -> pd.DataFrame:
    """Returns the networks that have a value in a column, sorted by it, the best first."""
    known = networks[networks[column].notna()]
    return known.sort_values(column, ascending=not more_is_better, ignore_index=True)


def write_report(table: pd.DataFrame, folder: Path) -> list[Path]:
    """Writes ranking.csv and four plots.

    Args:
        table: Rows as ``read_results`` gives them.
        folder: The output folder; it is made if it is missing.

    Returns:
        The five files.

    Raises:
        BoneageError: The folder cannot be written.
    """
    # Imported here because matplotlib, which plots need, is not needed for rankings.
    from boneage_cli.core.plots.speed import bars, by_batch_size

    networks = ranking(table)
    series = {}
    for network in networks["network"]:
        rows = table[table["network"] == network].sort_values("batch_size")
        series[network] = rows[["batch_size", "images_per_s", "ms_per_image"]].to_numpy(float)
    efficient = by(networks, "images_per_s_per_million", more_is_better=True)
    names = (
        *("ranking.csv", "throughput.png", "time-per-image.png"),
        *("best-throughput.png", "efficiency.png"),
    )
    files = [folder / name for name in names]
    with explaining_write_errors(folder):
        write_csv(networks, files[0], "%.4f")
        rates = {network: rows[:, [0, 1]] for network, rows in series.items()}
        by_batch_size(rates, files[1], "images/s", "Images per second")
        times = {network: rows[:, [0, 2]] for network, rows in series.items()}
        by_batch_size(times, files[2], "ms per image", "Time per image")
        bars(
            [f"{row['network']}, batch {row['best_batch']}" for row in _records(networks)],
            networks["images_per_s"].to_numpy(float),
            files[3],
            "images/s",
            "Images per second at the best batch size",
        )
        bars(
            [f"{row['network']}, {row['parameters'] / 1e6:.3g} M" for row in _records(efficient)],
            efficient["images_per_s_per_million"].to_numpy(float),
            files[4],
            "images/s per million parameters",
            "Images per second and million parameters",
        )
    return files


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return table.to_dict("records")  # type: ignore[return-value]


def _read(file: Path) -> pd.DataFrame:
    way_out = "give folders or CSV files that 'boneage bench' wrote (without --train)"
    try:
        table = pd.read_csv(file, encoding_errors="surrogateescape")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "no CSV table"
        raise BoneageError(f"{file}: cannot be read ({reason}); {way_out}") from None
    missing = [column for column in COLUMNS if column not in table]
    if missing or table.empty:
        reason = f"no column {missing[0]}" if missing else "no rows"
        raise BoneageError(f"{file}: no table of bench ({reason}); {way_out}")
    if table["model"].isna().any():
        raise BoneageError(f"{file}: a row names no model; {way_out}")
    for column in _NUMBERS:
        table[column] = pd.to_numeric(table[column], errors="coerce")
        if not ((table[column] > 0) & np.isfinite(table[column])).all():
            raise BoneageError(f"{file}: {column} must be a number above 0 in every row; {way_out}")
    return table
