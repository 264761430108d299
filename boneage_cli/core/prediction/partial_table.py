"""The rows that an interrupted command has predicted, from which the same command continues."""

from __future__ import annotations

import glob
import hashlib
import json
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import IO, Any

from boneage_cli.core.prediction.cases import Case, Prediction
from boneage_cli.core.prediction.output import Row
from boneage_cli.errors import BoneageError, BoneageWarning
from boneage_cli.files import explaining_write_errors
from boneage_cli.locks import try_lock


class PartialTable:
    """The rows of an unfinished table, as JSON Lines in a hidden file of the same folder.

    The file's name contains a digest of all that determines the rows, so only the same command
    finds it. It is locked while it is open. An incomplete last line, left by a crash, is dropped.

    Args:
        output: The table.
        asked: What determines the rows, as JSON types: inputs, options, the model.

    Raises:
        BoneageError: The file cannot be read or written, or another process is writing it.
    """

    def __init__(self, output: Path, asked: Mapping[str, Any]) -> None:
        key = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:12]
        self.output = output
        self.path = output.with_name(f".{output.name}-{key}.partial")
        self._file: IO[bytes] | None = None
        if self.path.exists():
            with explaining_write_errors(output):
                file = self._open()
                whole = sum(len(line) for line in self._lines())
                if whole < file.seek(0, 2):
                    file.truncate(whole)

    def rows(self) -> Iterator[Row]:
        """Yields the rows so far, in order."""
        for line in self._lines():
            yield json.loads(line)["row"]

    def keep(self, cases: Iterator[Case]) -> Iterator[Case]:
        """Keeps the rows up to the first whose radiograph has changed; drops the others.

        That is its file, or what the table of the inputs states of the child.

        Args:
            cases: All cases; those with a row are consumed.

        Returns:
            The cases that have no row.
        """
        kept = size = 0
        for line in self._lines():
            case = next(cases, None)
            if case is None or _version(case) != json.loads(line)["version"]:
                with explaining_write_errors(self.output):
                    (self._file or self._open()).truncate(size)
                warnings.warn(
                    f"{self.output}: the inputs have changed since it was interrupted; all after "
                    f"the first {kept:,} are predicted again",
                    BoneageWarning,
                    stacklevel=2,
                )
                return cases if case is None else chain([case], cases)
            kept, size = kept + 1, size + len(line)
        return cases

    def add(self, answers: Iterable[tuple[Prediction, Row]]) -> None:
        """Appends the rows of predictions, each as soon as it is available.

        Raises:
            BoneageError: The file cannot be written, or another process is writing it.
        """
        for prediction, row in answers:
            stored = {"row": row, "version": _version(prediction.case)}
            with explaining_write_errors(self.output):
                # Without a first row there is no file: a command that fails at once leaves none.
                file = self._file or self._open()
                file.write(f"{json.dumps(stored, allow_nan=False)}\n".encode("ascii"))
                file.flush()

    def discard(self) -> None:
        """Removes the file if this call has opened it: otherwise it may be another process's."""
        if self._file is not None:
            self.path.unlink(missing_ok=True)
        self.close()

    def remove(self) -> None:
        """Removes the file when the table is complete, and those of other commands for it."""
        self.discard()
        for file in self.path.parent.glob(f".{glob.escape(self.output.name)}-*.partial"):
            with suppress(OSError), file.open("ab") as other:
                if try_lock(other):
                    file.unlink()

    def close(self) -> None:
        """Closes the file and so releases its lock."""
        if self._file is not None:
            # Of a full disk the user is told when a row is added.
            with suppress(OSError):
                self._file.close()
            self._file = None

    def _open(self) -> IO[bytes]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = self.path.open("a+b")
        if not try_lock(file):
            file.close()
            raise BoneageError(
                f"{self.output}: is being written by another run of the same command; wait for "
                "it, or choose another --output"
            )
        self._file = file
        return file

    def _lines(self) -> Iterator[bytes]:
        # The open file is read, and not its name: something may have removed that meanwhile.
        if self._file is None:
            return
        self._file.seek(0)
        for line in self._file:
            if not line.endswith(b"\n"):
                return
            yield line


def _version(case: Case) -> list[Any]:
    """Returns what a case states, and size and mtime (ns) of its file if that can be read."""
    stated = [case.path, case.male, case.id, case.aspect, case.age, case.error]
    try:
        status = Path(case.path).stat()
    except (OSError, ValueError):
        return stated
    return [*stated, status.st_size, status.st_mtime_ns]
