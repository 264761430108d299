"""Tests of ``boneage clahe`` on the command line."""

from __future__ import annotations

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from typer.testing import CliRunner, Result

from boneage_cli.cli.app import app
from boneage_cli.datasets.manifest import read_manifest, write_manifest
from boneage_cli.imaging.clahe import apply_clahe
from boneage_cli.imaging.perturbations import dicom_bytes
from boneage_cli.imaging.radiograph import Radiograph
from boneage_cli.imaging.reading import read_radiograph
from boneage_cli.locks import locked_folder


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """``data/mine`` below the current folder: three small splits."""
    monkeypatch.chdir(tmp_path)
    folder = Path("data/mine")
    random = np.random.default_rng(0)
    records = []
    for split, names in {"train": "abc", "validation": "def", "test": "gh"}.items():
        (folder / split).mkdir(parents=True)
        for name in names:
            pixels = cv2.GaussianBlur(random.integers(0, 256, (90, 80), np.uint8), (0, 0), 4)
            cv2.imwrite(str(folder / split / f"{name}.webp"), pixels)
            path = f"{split}/{name}.webp"
            records.append((name, path, 120.5, name in "adg", split, 400, 600))
    columns = ["id", "path", "boneage", "male", "split", "width", "height"]
    write_manifest(pd.DataFrame(records, columns=columns), folder)
    return folder


def run(*arguments: str | Path, status: int = 0) -> Result:
    result = CliRunner().invoke(app, ["clahe", *map(str, arguments)])
    assert result.exit_code == status, result.output
    return result


def times(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_ino for path in sorted(folder.glob("*.png"))}


def test_validation_and_test_are_copied_and_are_splits_of_their_own(folder):
    result = run("--tiles", "4", "--clip-limit", "3")
    assert "validation_CLAHE: 3 made" in result.stdout
    assert not (folder / "train_CLAHE").exists()
    for split in ("validation", "test"):
        before, after = read_manifest(folder, split), read_manifest(folder, f"{split}_CLAHE")
        for column in ("id", "boneage", "male", "width", "height"):
            assert before[column].tolist() == after[column].tolist()
        assert set(after["split"]) == {f"{split}_CLAHE"}
        for source, copy in zip(before["path"], after["path"], strict=True):
            expected = apply_clahe(read_radiograph(source).pixels, 3, 4, 255)
            np.testing.assert_array_equal(read_radiograph(copy).pixels, expected)
    assert len(read_manifest(folder)) == 8


def test_a_second_run_makes_only_what_is_missing_or_changed(folder):
    run()
    first = times(folder / "validation_CLAHE")
    assert "validation_CLAHE: 0 made, 3 already there" in run().stdout
    assert times(folder / "validation_CLAHE") == first
    (folder / "validation_CLAHE" / "d.png").unlink()
    assert "validation_CLAHE: 1 made, 2 already there" in run().stdout
    source = folder / "validation" / "e.webp"
    other = np.zeros((20, 20), np.uint8)
    cv2.imwrite(str(source), other)
    os.utime(source, (1, 1))  # as if restored from an archive: changed, but with an older mtime
    assert "validation_CLAHE: 1 made, 2 already there" in run().stdout
    assert read_radiograph(folder / "validation_CLAHE" / "e.png").pixels.shape == other.shape


def test_other_settings_make_every_copy_anew(folder):
    run("--split", "test")
    assert "test_CLAHE: 2 made, 0 already there" in run("--split", "test", "--tiles", "2").stdout
    note = json.loads((folder / "test_CLAHE" / "CLAHE.json").read_text())
    assert note == {"clip_limit": 2.0, "tiles": 2}


def test_train_is_copied_with_a_warning_when_asked_for(folder):
    result = run("--split", "train")
    assert "worse" in result.stderr
    assert "train_CLAHE: 3 made" in result.stdout
    assert "warning" not in run("--split", "test").stderr


def test_an_unreadable_radiograph_is_named_and_the_others_are_copied(folder):
    (folder / "validation" / "e.webp").write_bytes(b"no image")
    result = run("--split", "validation", status=1)
    assert "e.webp: not a PNG" in result.stderr
    assert "2 made, 0 already there, 1 failed" in result.stdout
    assert read_manifest(folder, "validation_CLAHE")["id"].tolist() == ["d", "f"]


def test_a_copy_of_a_file_that_can_no_longer_be_read_goes(folder):
    run("--split", "validation")
    (folder / "validation" / "e.webp").write_bytes(b"no image")
    run("--split", "validation", status=1)
    assert not (folder / "validation_CLAHE" / "e.png").exists()


def test_no_table_of_copies_is_left_where_no_radiograph_can_be_read_any_more(folder):
    run("--split", "test")
    for name in "gh":
        (folder / "test" / f"{name}.webp").write_bytes(b"no image")
    assert "0 made, 0 already there, 2 failed" in run("--split", "test", status=1).stdout
    assert not (folder / "test_CLAHE.csv").exists()


def test_the_copy_of_a_dark_12_bit_radiograph_is_as_dark(tmp_path):
    dark = np.random.default_rng(0).integers(0, 400, (90, 80)).astype(np.uint16)
    (tmp_path / "hand.dcm").write_bytes(dicom_bytes(Radiograph(dark, 4095)))
    settings = ("--clip-limit", "1", "--tiles", "2")
    run("--input", tmp_path / "hand.dcm", "--output", tmp_path / "copies", *settings)
    copy = read_radiograph(tmp_path / "copies" / "hand.png")
    expected = apply_clahe(dark, 1, 2, 4095) / 4095
    assert expected.max() < 0.25
    np.testing.assert_allclose(copy.pixels / copy.white, expected, atol=1e-3)


def test_a_split_with_nothing_to_copy_is_refused(folder):
    (folder / "test.csv").unlink()
    assert "test_CLAHE" not in run().stdout
    result = run("--split", "test", status=2)
    assert "no test.csv" in result.stderr


def test_copies_of_other_files_of_the_same_name_and_time_are_not_taken(folder):
    for name, level in (("first", 50), ("second", 200)):
        Path(name).mkdir()
        pixels = np.random.default_rng(level).integers(0, 256, (40, 40), np.uint8)
        cv2.imwrite(f"{name}/hand.png", pixels)
        os.utime(f"{name}/hand.png", (1, 1))
    run("--input", "first", "--output", "copies")
    before = read_radiograph("copies/hand.png").pixels
    assert "1 made, 0 already there" in run("--input", "second", "--output", "copies").stdout
    assert not np.array_equal(read_radiograph("copies/hand.png").pixels, before)


def test_any_folder_is_copied_with_its_structure(tmp_path, monkeypatch, folder):
    deep = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    (tmp_path / "scans" / "a").mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "scans" / "a" / "deep.tif"), deep)
    cv2.imwrite(str(tmp_path / "scans" / "top.jpg"), (deep // 257).astype(np.uint8))
    (tmp_path / "scans" / "notes.txt").write_text("not an image")
    result = run("--input", "scans", "--output", "scans/out")
    assert "2 made" in result.stdout
    assert read_radiograph("scans/out/a/deep.png").pixels.dtype == np.uint16
    assert read_radiograph("scans/out/top.png").pixels.dtype == np.uint8
    # The copies below the input are not copied again.
    assert "0 made, 2 already there" in run("--input", "scans", "--output", "scans/out").stdout
    run("--input", "scans/top.jpg", "--input", "scans/a", "--output", "other")
    assert sorted(path.name for path in Path("other").glob("*.png")) == ["deep.png", "top.png"]


def test_files_that_the_command_did_not_make_are_never_touched(folder):
    result = run("--input", folder / "train", "--output", folder / "validation", status=2)
    assert "did not make" in result.stderr
    assert sorted(path.name for path in (folder / "validation").iterdir()) == [
        "d.webp",
        "e.webp",
        "f.webp",
    ]


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("--input train", "--output"),
        ("--output out", "--input"),
        ("--input train --output out --split test", "--split"),
        ("--input missing --output out", "missing: no such file"),
        (
            "--input data/mine/train.csv --input data/mine/train.csv --output out --tiles 0",
            "--tiles",
        ),
        ("--data nowhere", "nowhere"),
    ],
)
def test_a_command_line_that_makes_no_sense_is_refused(folder, line, hint):
    result = run(*line.split(), status=2)
    assert hint in " ".join(result.stderr.split())


def test_two_radiographs_of_one_name_are_refused(folder):
    (folder / "train" / "a.png").write_bytes((folder / "train" / "a.webp").read_bytes())
    result = run("--input", folder / "train", "--output", "out", status=2)
    assert "rename one" in result.stderr


def test_the_help_is_a_short_manual():
    text = run("--help").stdout
    for words in ("Examples", "boneage clahe --data rsna", "--clip-limit", "Exit status"):
        assert words in text


def test_only_copies_are_removed_and_no_radiograph_is_its_own_copy(folder):
    run("--input", folder / "test", "--output", "copies", "--tiles", "4")
    own = Path("copies/own.png")
    own.write_bytes(Path("copies/g.png").read_bytes()[:33] + b"whatever else")
    run("--input", folder / "test", "--output", "copies", "--tiles", "8")
    assert own.read_bytes().endswith(b"whatever else")
    result = run("--input", own, "--output", "copies", status=2)
    assert "own.png: lies in copies, where its copy goes" in result.stderr


def test_copies_below_the_radiographs_are_not_copied_again(folder):
    for line in (folder / "test", (folder / "test").absolute()):
        result = run("--input", line, "--output", folder / "test" / "clahe", "--tiles", "4")
    assert "0 made, 2 already there" in result.stdout


def test_copies_have_the_shape_that_a_dicom_file_states(folder):
    dataset = dcmread(get_testdata_file("CT_small.dcm"))
    dataset.PixelSpacing = [0.4, 0.2]
    Path("archive").mkdir()
    dataset.save_as("archive/a.dcm")
    run("--input", "archive", "--output", "copies", "--tiles", "4")
    assert cv2.imread("copies/a.png", cv2.IMREAD_UNCHANGED).shape == (256, 128)


def test_dicom_files_without_a_suffix_are_copied(folder):
    source = get_testdata_file("CT_small.dcm")
    Path("archive").mkdir()
    for name in ("1.2.840.1", "1.2.840.2"):
        Path("archive", name).write_bytes(Path(source).read_bytes())
    run("--input", "archive", "--output", "copies", "--tiles", "4")
    names = sorted(path.name for path in Path("copies").glob("*.png"))
    assert names == ["1.2.840.1.png", "1.2.840.2.png"]


def test_what_cannot_be_copied_is_told_of_as_predict_does(folder):
    Path("archive/inner").mkdir(parents=True)
    Path("archive/inner/hand.webp").write_bytes((folder / "test" / "g.webp").read_bytes())
    Path("archive/inner/IM000001").symlink_to("gone")
    # A link to a parent folder must not cause an endless search.
    Path("archive/inner/again").symlink_to(Path("archive").absolute())
    Path("archive/photograph.bmp").write_bytes(b"BM")
    result = run("--input", "archive", "--output", "copies", "--tiles", "4", status=1)
    assert "IM000001" in result.stderr
    assert "left out archive/photograph.bmp" in result.stderr
    assert "1 made, 0 already there, 1 failed" in result.stdout
    assert [path.name for path in Path("copies").rglob("*.png")] == ["hand.png"]


def test_tiles_and_clip_limit_change_the_copies_of_any_folder(folder):
    source = folder / "validation" / "d.webp"
    pixels = read_radiograph(source).pixels
    copies = []
    for number, (tiles, clip) in enumerate(((2, 2.0), (6, 2.0), (2, 9.0))):
        output = f"copies-{number}"
        chosen = ("--tiles", str(tiles), "--clip-limit", str(clip))
        run("--input", folder / "validation", "--output", output, *chosen)
        copies.append(read_radiograph(Path(output, "d.png")).pixels)
        np.testing.assert_array_equal(copies[-1], apply_clahe(pixels, clip, tiles, 255))
    for one, other in ((0, 1), (0, 2)):
        assert (copies[one] != copies[other]).any()


def test_copies_that_another_command_is_making_are_left_to_it(folder):
    run()
    with locked_folder(folder / "test_CLAHE"):
        result = run("--split", "test", "--tiles", "4", status=2)
    assert "test_CLAHE: another 'boneage clahe' is writing it" in result.stderr
    assert "0 made, 2 already there" in run("--split", "test").stdout


def test_what_follows_a_dot_in_a_uid_is_part_of_a_name(folder):
    image = read_radiograph(folder / "test" / "g.webp")
    for number in (1, 2):
        (folder / "test" / f"1.2.840.{number}").write_bytes(dicom_bytes(image))
    table = pd.read_csv(folder / "test.csv", dtype=str)
    paths = ["test/1.2.840.1", "test/1.2.840.2"]
    table.assign(path=paths).to_csv(folder / "test.csv", index=False)
    assert "2 made" in run("--split", "test").stdout
    copies = sorted(path.name for path in (folder / "test_CLAHE").glob("*.png"))
    assert copies == ["1.2.840.1.png", "1.2.840.2.png"]
