"""Promises that no output replaces a radiograph or a model."""

from __future__ import annotations

from pathlib import Path

import pytest

from boneage_cli.core.overwriting import check_model_output, check_text_output
from boneage_cli.errors import BoneageError


@pytest.mark.parametrize("content", [bytes(128) + b"DICM", b"\x10\0\0\0\0\0\0\0{}"])
def test_text_replaces_nothing_but_text(tmp_path: Path, content: bytes) -> None:
    there = tmp_path / "there"
    there.write_bytes(content)
    with pytest.raises(BoneageError, match="there: is there already and holds no text"):
        check_text_output(there)
    there.write_text("scans/a.png: 10 years 6 months (126.5 months)\n")
    check_text_output(there)


def test_a_model_replaces_nothing_but_a_model(tmp_path: Path) -> None:
    there = tmp_path / "report.docx"
    there.write_text("a report")
    with pytest.raises(BoneageError, match="is there already and is no model"):
        check_model_output(there)
    check_model_output(there.with_suffix(".safetensors"))


@pytest.mark.parametrize("check", [check_text_output, check_model_output])
def test_inputs_and_files_that_are_named_like_images_are_never_written(
    check, tmp_path: Path
) -> None:
    table = tmp_path / "children.safetensors"
    table.write_text("path,sex\n")
    (tmp_path / "link.safetensors").symlink_to(table)
    with pytest.raises(BoneageError, match="is an input as well"):
        check(tmp_path / "link.safetensors", ["-", str(tmp_path / "gone"), str(table)])
    with pytest.raises(BoneageError, match="is named like an image"):
        check(tmp_path / "new.PNG")
