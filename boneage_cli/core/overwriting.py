"""Refuses outputs that would replace a radiograph, a model or a command's own inputs."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from boneage_cli.errors import BoneageError
from boneage_cli.files import explaining_write_errors, is_below
from boneage_cli.imaging.suffixes import IMAGE_SUFFIXES


def check_text_output(output: Path, inputs: Sequence[str] = ()) -> None:
    """Refuses to write text over an input, an image, or an existing file that is no text.

    Args:
        output: The file to write.
        inputs: The inputs that are read.

    Raises:
        BoneageError: The output is one of these files.
    """
    _check(output, inputs, "the text")
    if output.is_file():
        with suppress(OSError), output.open("rb") as file:
            if b"\0" in file.read(4096):
                raise BoneageError(
                    f"--output {output}: is there already and holds no text, but an image or a "
                    "model maybe; choose another name"
                )


def check_table_output(output: Path, first_columns: str, inputs: Sequence[str] = ()) -> None:
    """Refuses to write a table over a file that is not an earlier table of the same command.

    Args:
        output: The file to write.
        first_columns: The beginning of such a table's first line; an empty file has none.
        inputs: The inputs that are read.

    Raises:
        BoneageError: The output is another file, or cannot be read.
    """
    check_text_output(output, inputs)
    if not output.is_file():
        return
    with explaining_write_errors(output), output.open("rb") as file:
        if output.stat().st_size and not file.readline().startswith(first_columns.encode()):
            raise _not_ours(output)


def check_model_output(output: Path, inputs: Sequence[str] = ()) -> None:
    """Refuses to write a model over an input, an image, or an existing file that is no model.

    Args:
        output: The file to write.
        inputs: The inputs that are read.

    Raises:
        BoneageError: The output is one of these files.
    """
    _check(output, inputs, "the model")
    if output.is_file() and not output.name.lower().endswith(".safetensors"):
        raise BoneageError(
            f"--output {output}: is there already and is no model; name a file *.safetensors"
        )


def check_export_output(output: Path, mark: str) -> None:
    """Refuses to write an exported model over a file that is not one.

    Args:
        output: The file to write.
        mark: Text that the metadata of every exported model contain.

    Raises:
        BoneageError: The output is another file, or cannot be read.
    """
    if not output.is_file():
        return
    with explaining_write_errors(output):
        if mark.encode() not in output.read_bytes():
            raise _not_ours(output)


def check_pictures(folder: Path, inputs: Sequence[str], instead: str) -> None:
    """Refuses to write pictures into a folder of radiographs, where they would become inputs.

    Args:
        folder: The folder for the pictures.
        inputs: The inputs with the radiographs.
        instead: As for ``check_writable``.

    Raises:
        BoneageError: The folder is one of the inputs, or inside one.
    """
    for name in inputs:
        if Path(name).is_dir() and is_below(folder, name):
            raise BoneageError(
                f"{folder}: lies in {name}, so that its pictures would be taken for radiographs; "
                f"choose another {instead}"
            )


def _not_ours(output: Path) -> BoneageError:
    return BoneageError(
        f"--output {output}: is there already and was not written by this command; choose another "
        "name"
    )


def _check(output: Path, inputs: Sequence[str], what: str) -> None:
    if output.suffix.lower() in IMAGE_SUFFIXES:
        raise BoneageError(f"--output {output}: is named like an image; name a file for {what}")
    if output.exists() and any(Path(name).exists() and output.samefile(name) for name in inputs):
        raise BoneageError(f"--output {output}: is an input as well; choose another name")
