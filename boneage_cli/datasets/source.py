"""SOURCE.json: the record of a data set's origin, date, terms of use and label version.

It is written as incomplete at the start and as complete at the end. This distinguishes an
interrupted command from a finished one, and from a folder of the user's own, which is not changed.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from boneage_cli import __version__
from boneage_cli.errors import BoneageError
from boneage_cli.json_files import read_json, write_json

SOURCE_FILE = "SOURCE.json"
UNMATCHED_FILE = "unmatched.csv"


@dataclass(frozen=True)
class Source:
    """Contents of SOURCE.json.

    Attributes:
        name: The kind of source: demo, rsna, kaggle or local.
        requested: The requested data set: its name, or the given paths with their sizes and
            modification times.
        options: The settings that shaped the data set.
        terms: Terms of use.
        citation: The publication to cite.
        files: The archives and tables it was made from, each with ``sha256``, ``bytes`` and
            ``path`` or ``url``.
        splits: Numbers of ``images`` and ``labels`` of each split.
        validation: Origin of the validation split.
        label_version: See ``label_version.label_version``.
        date: Time of completion, UTC.
        software: The version of this package that made it.
        complete: False while it is being made.
    """

    name: str
    requested: Any = None
    options: dict[str, Any] = field(default_factory=dict)
    terms: str = ""
    citation: str = ""
    files: list[dict[str, Any]] = field(default_factory=list)
    splits: dict[str, dict[str, int]] = field(default_factory=dict)
    validation: str = "none"
    label_version: str = "none"
    date: str = ""
    software: str = f"boneage {__version__}"
    complete: bool = False


def read_source(folder: Path) -> Source | None:
    """Reads a data set's SOURCE.json; None if there is none.

    Raises:
        BoneageError: The file is not a valid record of this package.
    """
    file = folder / SOURCE_FILE
    if not file.is_file():
        return None
    way_out = f"move {folder} out of the way and fetch again"
    record = read_json(file, way_out)
    known = {entry.name for entry in fields(Source)}
    try:
        return Source(**{key: value for key, value in record.items() if key in known})
    except TypeError as error:
        raise BoneageError(f"{file}: cannot be read ({error}); {way_out}") from None


def write_source(folder: Path, source: Source) -> None:
    """Writes a data set's SOURCE.json."""
    write_json(asdict(source), folder / SOURCE_FILE)
