"""The demo data set: drawn hands with a SOURCE.json, as for any other source."""

from __future__ import annotations

from pathlib import Path

from boneage_cli.datasets.fetching import Fetched, already_there, begin, fetching, finish
from boneage_cli.datasets.source import Source
from boneage_cli.errors import BoneageError
from boneage_cli.files import explaining_write_errors


def fetch_demo(
    folder: Path,
    *,
    train: int = 240,
    validation: int = 60,
    test: int = 60,
    seed: int = 42,
    force: bool = False,
) -> Fetched:
    """Draws the demo data set, unless the folder already holds the same one.

    Args:
        folder: The data set's folder.
        train: Number of training drawings.
        validation: Number of validation drawings.
        test: Number of test drawings.
        seed: Random seed of the drawings.
        force: Replaces an earlier data set in the folder.

    Returns:
        The data set.

    Raises:
        BoneageError: The folder holds other files, or a count is negative or all are zero.
    """
    counts = {"train": train, "validation": validation, "test": test}
    if min(counts.values()) < 0 or not any(counts.values()):
        raise BoneageError(f"demo: cannot draw {counts} images; give counts of 0 or more")
    wanted = Source(
        name="demo",
        requested="drawn hands",
        options={**counts, "seed": seed},
        terms="Drawings made by this software, of no patient; free for any use",
        citation="None needed",
        validation="from the source",
    )
    with fetching(folder, wanted, force=force) as earlier:
        there = already_there(folder, earlier)
        if there:
            return there
        # Imported here because drawing needs OpenCV and checking an earlier data set does not.
        from boneage_cli.datasets.drawn_hands import write_demo

        if earlier is None:
            begin(folder, wanted)
        with explaining_write_errors(folder, "--to"):
            write_demo(folder, **counts, seed=seed)
        return finish(folder, wanted)
