"""What an interrupted command has predicted, so that the same command goes on from there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from boneage_cli.core.prediction.cases import Case
from boneage_cli.core.prediction.output import Row
from boneage_cli.errors import BoneageError
from boneage_cli.files import try_lock, writing


class PartialTable:
    """The rows of a table that is not whole yet, in a hidden file beside it, one JSON object each.

    The file's name follows from all that decides the rows, so that only the same command finds it.
    A row that was cut off by a sudden end is dropped.

    Args:
        output: The table.
        asked: What decides the rows, as JSON types: inputs, options, the model.

    Raises:
        BoneageError: The file cannot be read or written.
    """

    def __init__(self, output: Path, asked: Mapping[str, Any]) -> None:
        key = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:12]
        self.output = output
        self.path = output.with_name(f".{output.name}-{key}.partial")
        self._size = 0
        with writing(output):
            if self.path.exists():
                self._size = sum(len(line) for line in self._whole_lines())
                with self.path.open("r+b") as file:
                    file.truncate(self._size)

    def rows(self) -> Iterator[Row]:
        """The rows so far, in order."""
        if self.path.exists():
            yield from map(json.loads, self._whole_lines())

    def skip(self, cases: Iterator[Case]) -> Iterator[Case]:
        """Yields the cases that have no row yet.

        Args:
            cases: All of them, in the order of before.

        Raises:
            BoneageError: They are not the cases of the rows, or a file has changed since.
        """
        begun = self.path.stat().st_mtime if self._size else 0.0
        for row in self.rows():
            case = next(cases, None)
            if case is None or case.path != row["path"] or _changed_since(case.path, begun):
                raise BoneageError(
                    f"{self.path}: what an interrupted command left does not fit the inputs any "
                    "more; delete it to begin anew"
                )
        yield from cases

    def add(self, rows: Iterable[Row]) -> None:
        """Appends rows, each as soon as it is there.

        Raises:
            BoneageError: The file cannot be written, or another process is writing it.
        """
        rows = iter(rows)
        first = next(rows, None)
        if first is None:
            return
        with writing(self.output):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="ascii") as file:
                if not try_lock(file):
                    raise BoneageError(
                        f"{self.output}: is being written by another run of the same command; wait "
                        "for it, or choose another --output"
                    )
                for row in chain([first], rows):
                    file.write(f"{json.dumps(row, allow_nan=False)}\n")
                    file.flush()

    def remove(self) -> None:
        """Removes the file, once the table is whole."""
        self.path.unlink(missing_ok=True)

    def _whole_lines(self) -> Iterator[bytes]:
        with self.path.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    return
                yield line


def _changed_since(path: str, moment: float) -> bool:
    try:
        return Path(path).stat().st_mtime > moment
    except OSError:
        # Then it has a row that says so.
        return False
