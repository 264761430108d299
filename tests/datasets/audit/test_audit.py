"""Tests of the audit: it reports every fault with its row, and nothing else."""

from __future__ import annotations

import base64
import csv
import json
import pickle
import re
import warnings
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.data import get_testdata_file

from boneage_cli.datasets.audit.audit import Audit, audit
from boneage_cli.datasets.audit.findings import KINDS, Finding
from boneage_cli.datasets.audit.image_statistics import BINS, image_statistics
from boneage_cli.datasets.audit.labels import read_labels
from boneage_cli.datasets.audit.report import write_report
from boneage_cli.datasets.audit.tables import audit_tables
from boneage_cli.datasets.manifest import read_manifest, warn_of_years, write_manifest
from boneage_cli.errors import BoneageError
from boneage_cli.imaging.radiograph import Radiograph

SIZES = {"train": 24, "validation": 6, "test": 6}
FIRST_TEST_ID = 4360
# Python 3.10 refuses a whole CSV file if it contains NUL.
LETTERS = st.characters(codec="utf-8", exclude_characters="\x00")


def hand(seed: int, height: int = 96, width: int = 80) -> np.ndarray:
    """Returns a noisy bright blob on a dark background, different for each seed."""
    rows, columns = np.mgrid[0:height, 0:width]
    distance = np.hypot(rows / height - 0.55, columns / width - 0.5)
    noise = np.random.default_rng(seed).normal(0, 6, (height, width))
    return np.clip(25 + 190 * np.exp(-((distance / 0.3) ** 2)) + noise, 0, 255).astype(np.uint8)


class DataSet:
    """A data set of drawings without faults, into which tests insert faults."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        ids = {"train": 100, "validation": 200, "test": FIRST_TEST_ID}
        records = []
        for split, number in SIZES.items():
            (folder / split).mkdir(parents=True)
            for index in range(number):
                name = str(ids[split] + index)
                path = f"{split}/{name}.png"
                cv2.imwrite(str(folder / path), hand(ids[split] + index))
                age = 168.93 if name == str(FIRST_TEST_ID) else 8.5 + 9 * index
                records.append((name, path, str(age), str(index % 2 == 0), split))
        columns = ["id", "path", "boneage", "male", "split"]
        # A separate index: before pandas 3 an index made from the column changes with its cells.
        index = pd.Index([record[0] for record in records], dtype=object, name="id")
        self.table = pd.DataFrame(records, index, columns, dtype=object)
        self.source = {"name": "local", "complete": True, "label_version": "official-decimal"}

    def image(self, name: str) -> Path:
        return self.folder / self.table.loc[name, "path"]

    def check(self, split: str | None = None) -> Audit:
        write_manifest(self.table, self.folder)
        (self.folder / "SOURCE.json").write_text(json.dumps(self.source))
        return audit(self.folder, split, workers=2)

    def only(self, kind: str, split: str | None = None) -> Finding:
        """Returns the only finding, which must be of this kind."""
        faults = [finding for finding in self.check(split).findings if finding.severity != "note"]
        assert [finding.kind for finding in faults] == [kind]
        return faults[0]


@pytest.fixture
def data(tmp_path: Path) -> DataSet:
    return DataSet(tmp_path / "set")


@pytest.fixture(scope="module")
def radiographs(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of 1,000 real radiographs."""
    folder = tmp_path_factory.mktemp("real")
    labels = pd.read_csv(shared_data / "boneage-training-dataset.csv", dtype={"id": str})
    sizes = pd.read_csv(shared_data / "native-size.csv", dtype={"id": str})
    with zipfile.ZipFile(shared_data / "rsna-train-299-a.zip") as archive:
        names = [name for name in archive.namelist() if name.endswith(".webp")][:1000]
        (folder / "train").mkdir()
        for name in names:
            (folder / "train" / Path(name).name).write_bytes(archive.read(name))
    table = labels[labels["id"].isin({Path(name).stem for name in names})].merge(sizes, on="id")
    table["split"] = "train"
    table["path"] = "train/" + table["id"] + ".webp"
    write_manifest(table, folder)
    return folder


def test_a_data_set_without_faults_passes(data: DataSet) -> None:
    result = data.check()
    assert result.passed
    assert {finding.severity for finding in result.findings} <= {"note"}
    assert result.summary().startswith("36 rows, 36 images read, 0 errors, 0 warnings")
    assert result.summary().endswith("passed")


@pytest.mark.parametrize(
    ("column", "cell", "kind"),
    [
        ("boneage", "", "boneage-missing"),
        ("boneage", "nan", "boneage-nan"),
        ("boneage", "NaN", "boneage-nan"),
        ("boneage", "inf", "boneage-infinite"),
        ("boneage", "-Infinity", "boneage-infinite"),
        ("boneage", "ten", "boneage-not-a-number"),
        ("boneage", "12,5", "boneage-not-a-number"),
        ("boneage", "0", "boneage-impossible"),
        ("boneage", "-3", "boneage-impossible"),
        ("boneage", "240.5", "boneage-impossible"),
        ("male", "", "sex-missing"),
        ("male", "M", "sex-unreadable"),
        ("id", "", "id-missing"),
        ("path", "", "path-missing"),
    ],
)
def test_a_wrong_cell_is_named_with_its_line(
    data: DataSet, column: str, cell: str, kind: str
) -> None:
    data.table.loc["105", column] = cell
    (data.folder / "train" / "105.png").unlink() if column == "path" else None
    finding = data.only(kind)
    assert (finding.split, finding.row) == ("train", 7)
    assert finding.id == ("" if column == "id" else "105")
    assert cell in finding.message


def test_ages_from_one_month_to_twenty_years_are_possible(data: DataSet) -> None:
    data.table.loc["105", "boneage"] = "0.5"
    data.table.loc["106", "boneage"] = "240"
    assert data.check().passed


@settings(deadline=None, max_examples=60)
@given(
    cells=st.lists(
        st.tuples(
            st.one_of(st.text(LETTERS, max_size=8), st.floats().map(str)),
            st.one_of(st.text(LETTERS, max_size=5), st.sampled_from(["True", "FALSE", "1", "0.0"])),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_whatever_a_cell_holds_it_is_a_usable_label_or_a_finding(
    tmp_path_factory: pytest.TempPathFactory, cells: list[tuple[str, str]]
) -> None:
    folder = tmp_path_factory.mktemp("cells")
    with (folder / "train.csv").open("w", encoding="utf-8", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["id", "path", "boneage", "male", "split"])
        writer.writerows((f"a{i}", f"{i}.png", *pair, "train") for i, pair in enumerate(cells))
    rows, findings = read_labels(folder, "train")
    assert [row.id for row in rows] == [f"a{i}" for i in range(len(cells))]
    told = {(finding.row, finding.kind.partition("-")[0]) for finding in findings}
    for row in rows:
        assert (row.boneage is None) == ((row.line, "boneage") in told)
        assert row.boneage is None or 0 < row.boneage <= 240
        assert (row.male is None) == ((row.line, "sex") in told)


def test_lines_are_counted_as_an_editor_counts_them(data: DataSet) -> None:
    data.check()
    file = data.folder / "train.csv"
    lines = file.read_text().splitlines()
    lines[5] = lines[5].replace("True", "?").replace("False", "?")
    file.write_text("\n".join([*lines[:3], "", "", *lines[3:]]) + "\n")
    findings = [f for f in audit(data.folder).findings if f.kind == "sex-unreadable"]
    assert [finding.row for finding in findings] == [8]


def test_a_row_with_a_value_too_many_is_named(data: DataSet) -> None:
    data.check()
    file = data.folder / "validation.csv"
    lines = file.read_text().splitlines()
    file.write_text("\n".join([lines[0], lines[1] + ",7", *lines[2:]]) + "\n")
    faults = [finding for finding in audit(data.folder).findings if finding.severity == "error"]
    assert [(finding.kind, finding.row) for finding in faults] == [("row-length", 2)]


# What makes a table wrong, but not unreadable.
ABOUT_AGES_AND_SPLITS = {
    *(f"boneage-{what}" for what in ("missing", "nan", "infinite", "impossible")),
    "wrong-split",
}
CELLS = {
    "id": ["1", "NA", ""],
    "path": ["1.png", ""],
    "boneage": ["24", "", "nan", "inf", "-3", "n/a", "ten", "12,5", "1_2", "1e3"],
    "male": ["True", "0", "1.0", "", "null", "M"],
    "split": ["train", "", "test"],
    "width": ["400", "400.5", "", "NaN", "-3", "0", "inf", "wide"],
    "patient": ["Doe", "Doe, Jane", ""],
    "beyond": ["", "7"],
}


@settings(deadline=None, max_examples=200)
@given(
    rows=st.lists(
        st.tuples(st.tuples(*map(st.sampled_from, CELLS.values())), st.integers(1, len(CELLS))),
        min_size=1,
        max_size=3,
    )
)
def test_the_audit_refuses_what_reading_a_table_refuses_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[tuple[str, ...], int]]
) -> None:
    folder = tmp_path_factory.mktemp("cells")
    with (folder / "train.csv").open("w", encoding="utf-8", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow([*CELLS][:-1])
        writer.writerows(cells[:length] for cells, length in rows)
    _, findings = read_labels(folder, "train")
    errors = {f.kind for f in findings if f.severity == "error"} - ABOUT_AGES_AND_SPLITS
    with suppress(BoneageError):
        read_manifest(folder)
        assert errors <= {"no-rows"}
        return
    assert errors


def test_values_that_are_left_off_at_the_end_of_a_row_are_empty(data: DataSet) -> None:
    data.check()
    file = data.folder / "validation.csv"
    file.write_text(file.read_text().replace(",True,validation", ",True"))
    assert audit(data.folder).passed


def test_a_row_in_the_file_of_another_split_is_named(data: DataSet) -> None:
    data.check()
    file = data.folder / "validation.csv"
    file.write_text(file.read_text().replace("True,validation", "True,test", 1))
    kinds = [finding.kind for finding in audit(data.folder).findings]
    assert "wrong-split" in kinds


def test_a_label_file_without_rows_is_an_error(data: DataSet) -> None:
    data.check()
    (data.folder / "validation.csv").write_text("id,path,boneage,male,split\n")
    result = audit(data.folder)
    assert "no-rows" in result.by_kind()
    assert not result.passed


def test_an_id_with_two_labels_is_an_error_and_one_with_the_same_label_twice_a_warning(
    data: DataSet,
) -> None:
    again = data.table.loc["103"].copy()
    data.table = pd.concat([data.table, again.to_frame().T], ignore_index=True)
    assert data.only("id-repeated").row == SIZES["train"] + 2
    data.table.iloc[-1, data.table.columns.get_loc("boneage")] = "99"
    finding = data.only("id-conflict")
    assert "line 5" in finding.message
    assert "35.5 and 99" in finding.message


def test_an_id_in_two_splits_is_an_error_even_if_one_of_them_is_checked(data: DataSet) -> None:
    again = data.table.loc["103"].copy()
    again["split"] = "validation"
    data.table = pd.concat([data.table, again.to_frame().T], ignore_index=True)
    assert data.check().by_kind().keys() >= {"id-in-two-splits"}
    assert data.only("id-in-two-splits", "validation").split == "validation"
    assert data.only("id-in-two-splits", "train").split == "train"


def test_a_patient_in_two_splits_is_an_error(data: DataSet) -> None:
    data.table["patient"] = ["p" + name for name in data.table["id"]]
    data.table.loc["204", "patient"] = "p110"
    finding = data.only("patient-in-two-splits")
    assert (finding.id, finding.row) == ("204", 6)


def test_a_patient_of_both_sexes_is_an_error(data: DataSet) -> None:
    data.table["patient"] = [f"p{name}-{male}" for name, male in data.table["male"].items()]
    first = data.table.index[data.table["male"] != data.table["male"].iloc[0]][0]
    data.table.loc[[data.table.index[0], first], "patient"] = "p7"
    finding = data.only("patient-of-both-sexes")
    assert finding.id == first
    assert "patient p7: " in finding.message
    data.table.loc[first, "male"] = ""
    assert "patient-of-both-sexes" not in data.check().by_kind()


def test_missing_truncated_foreign_empty_and_constant_images_are_errors(data: DataSet) -> None:
    data.image("101").unlink()
    content = data.image("102").read_bytes()
    data.image("102").write_bytes(content[: len(content) // 2])
    data.image("103").write_bytes(b"not an image")
    data.image("104").write_bytes(b"")
    cv2.imwrite(str(data.image("105")), np.full((80, 80), 40, np.uint8))
    result = data.check()
    found = [(f.kind, f.id, f.row) for f in result.findings if f.severity == "error"]
    assert found == [
        ("file-missing", "101", 3),
        ("file-unreadable", "102", 4),
        ("file-unreadable", "103", 5),
        ("file-unreadable", "104", 6),
        ("constant", "105", 7),
    ]
    assert "truncated" in next(f.message for f in result.findings if f.id == "102")
    assert result.summary().startswith("36 rows, 32 images read, 5 errors")


def test_the_same_pixels_in_another_format_are_a_duplicate(data: DataSet) -> None:
    cv2.imwrite(str(data.image("110").with_suffix(".tif")), cv2.imread(str(data.image("105")), 0))
    data.image("110").unlink()
    data.table.loc["110", "path"] = "train/110.tif"
    finding = data.only("same-pixels")
    assert finding.id == "110"
    assert "train 105 (line 7)" in finding.message
    assert "bone ages 53.5 and 98.5" in finding.message
    assert "girl and boy" in finding.message


def test_the_same_pixels_in_two_splits_are_an_error(data: DataSet) -> None:
    data.image("203").write_bytes(data.image("105").read_bytes())
    assert data.only("same-pixels-in-two-splits").id == "203"


def test_two_ids_that_share_one_file_are_an_error(data: DataSet) -> None:
    data.image("110").unlink()
    data.table.loc["110", "path"] = data.table.loc["105", "path"]
    assert data.only("same-file").id == "110"


def test_an_image_that_no_row_names_is_a_warning(data: DataSet) -> None:
    (data.folder / "test" / "more").mkdir()
    stray = data.folder / "test" / "more" / "9999.PNG"
    stray.write_bytes(data.image("101").read_bytes())
    (data.folder / "test" / "notes.txt").write_text("no image")
    finding = data.only("file-unnamed")
    assert Path(finding.path) == stray
    assert finding.split == "test"


def test_images_may_be_elsewhere_than_in_the_folder_of_their_split(data: DataSet) -> None:
    (data.folder / "test").rename(data.folder / "images")
    data.table["path"] = data.table["path"].str.replace("test/", "images/")
    assert not [f for f in data.check().findings if f.severity != "note"]


def test_what_the_system_leaves_in_folders_is_no_image_and_dicom_without_a_suffix_is(
    data: DataSet,
) -> None:
    (data.folder / "test" / "._4360.png").write_bytes(b"resource fork")
    (data.folder / "test" / "IM0001").write_bytes(bytes(128) + b"DICM")
    assert Path(data.only("file-unnamed").path).name == "IM0001"


@pytest.mark.parametrize(
    ("width", "problem"),
    [
        ("inf", "size in pixels"),
        ("-5", "size in pixels"),
        ("0", "size in pixels"),
        ("wide", "number"),
    ],
)
def test_a_size_that_is_none_is_named_and_the_report_is_written_all_the_same(
    data: DataSet, width: str, problem: str, tmp_path: Path
) -> None:
    data.table["width"], data.table["height"] = "60", "70"
    data.table.loc["105", "width"] = width
    finding = data.only("size-unreadable")
    assert (finding.id, finding.message) == ("105", f"width '{width}' is no {problem}")
    write_report(data.check(), tmp_path / "report")
    assert (tmp_path / "report" / "index.html").exists()


@pytest.mark.parametrize("depth", [8, 16])
def test_suspicious_images_are_warned_about_at_any_depth(data: DataSet, depth: int) -> None:
    def store(name: str, pixels: np.ndarray) -> None:
        deep = pixels.astype(np.uint16) * 257
        cv2.imwrite(str(data.image(name)), deep if depth == 16 else pixels)

    store("101", (hand(1) // 12))
    store("102", (90 + hand(2) // 32))
    store("103", (255 - hand(3)))
    store("104", hand(4, 50, 50))
    store("105", hand(5, 300, 90))
    store("106", hand(6))
    result = data.check()
    assert result.passed
    found = {(f.kind, f.id) for f in result.findings if f.severity == "warning"}
    assert found == {
        ("very-dark", "101"),
        ("faint", "102"),
        ("bright-surround", "103"),
        ("tiny", "104"),
        ("extreme-aspect", "105"),
    }


def test_a_squashed_strip_is_judged_by_the_size_it_was_taken_with(data: DataSet) -> None:
    data.table["width"], data.table["height"] = 1500, 2000
    data.table.loc["105", "width"] = 500
    finding = data.only("extreme-aspect")
    assert (finding.id, finding.message) == ("105", "500 × 2000 pixels")


def test_pixels_that_a_dicom_file_states_not_to_be_square_are_shown_in_true_proportions(
    data: DataSet, tmp_path: Path
) -> None:
    dataset = dcmread(get_testdata_file("CT_small.dcm"))
    del dataset.PixelSpacing
    dataset.PixelAspectRatio = ["1", "3"]
    dataset.PixelRepresentation = 0
    dataset.Rows, dataset.Columns = 300, 100
    dataset.PixelData = hand(7, 300, 100).astype(np.uint16).tobytes()
    dataset.save_as(data.folder / "train" / "105.dcm")
    data.image("105").unlink()
    data.table.loc["105", "path"] = "train/105.dcm"
    data.table = data.table.loc[["105"]]
    assert "extreme-aspect" not in data.check().by_kind()
    assert [picture.shape for picture in pictures_of(page_of(data, tmp_path / "report"))] == [
        (300, 300)
    ] * 2


def test_the_label_version_of_the_test_split_is_named(data: DataSet) -> None:
    finding = data.check().by_kind()["label-version"][0]
    assert "official-decimal" in finding.message
    assert "4360 is 168.93" in finding.message


def test_test_labels_of_another_version_than_stated_are_an_error(data: DataSet) -> None:
    test = data.table["split"] == "test"
    data.table.loc[test, "boneage"] = [str(164 - 10 * index) for index in range(SIZES["test"])]
    finding = data.only("label-version-wrong")
    assert "'official-decimal'" in finding.message
    assert "'integer'" in finding.message


def test_a_test_split_without_labels_is_a_warning_and_not_an_error(data: DataSet) -> None:
    data.table.loc[data.table["split"] == "test", "boneage"] = ""
    data.source["label_version"] = "none"
    finding = data.only("boneage-unknown")
    assert finding.message.startswith("6 of 6")


def test_ages_that_look_like_years_and_a_rare_sex_are_warned_about(data: DataSet) -> None:
    train = data.table["split"] == "train"
    data.table.loc[train, "boneage"] = [str(1 + index / 2) for index in range(SIZES["train"])]
    data.table.loc[train, "male"] = ["True"] * 20 + ["False"] * 4
    kinds = data.check().by_kind()
    assert kinds["boneage-in-years"][0].message == "bone ages from 1 to 12.5"
    assert kinds["sex-imbalance"][0].message == "20 boys and 4 girls"


@pytest.mark.parametrize("count", [9, 10])
def test_ages_look_like_years_to_the_audit_if_they_do_to_training(
    data: DataSet, count: int
) -> None:
    data.table = data.table.iloc[:count].assign(boneage="9")
    data.table.iloc[0, data.table.columns.get_loc("boneage")] = "12"
    found = data.check().by_kind().get("boneage-in-years", [])
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        warn_of_years(read_manifest(data.folder))
    assert len(found) == len(warned) == (count == 10)
    assert all("ages from 9 to 12" in finding.message for finding in found)
    assert all("ages from 9 to 12" in str(warning.message) for warning in warned)


def test_an_interrupted_fetch_is_an_error(data: DataSet) -> None:
    data.source = {"name": "rsna", "complete": False}
    assert data.only("incomplete").path.endswith("SOURCE.json")


def test_a_folder_without_labels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BoneageError, match=r"no train\.csv here; make a data set"):
        audit(tmp_path)


def test_a_split_that_is_not_there_is_refused(data: DataSet) -> None:
    data.table = data.table[data.table["split"] != "test"]
    with pytest.raises(BoneageError, match=r"no test\.csv here"):
        data.check("test")


@pytest.mark.parametrize("content", ["id,age\n1,2\n", "", "\x00\x01"])
def test_a_file_that_is_no_manifest_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "train.csv").write_text(content)
    with pytest.raises(BoneageError, match=r"train\.csv.*: (no column|no row of a CSV table)"):
        audit(tmp_path)


def test_every_kind_of_finding_has_a_way_out_and_errors_come_first() -> None:
    severities = [kind.severity for kind in KINDS.values()]
    assert severities == sorted(severities, key=["error", "warning", "note"].index)
    assert all(kind.remedy and not kind.remedy.endswith(".") for kind in KINDS.values())


@pytest.mark.parametrize(("dtype", "white"), [(np.uint8, 255), (np.uint16, 4095)])
def test_statistics_are_those_of_the_pixels(dtype: type, white: int) -> None:
    pixels = np.random.default_rng(0).integers(0, white + 1, (70, 90)).astype(dtype)
    found = image_statistics(Radiograph(pixels, white))
    assert (found.width, found.height, found.white) == (90, 70, white)
    assert found.mean == pytest.approx(pixels.mean() / white)
    assert found.contrast == pytest.approx(pixels.std() / white)
    assert (found.darkest, found.brightest) == (pixels.min() / white, pixels.max() / white)
    counts, _ = np.histogram(pixels, bins=BINS, range=(0, white + 1))
    assert found.histogram == pytest.approx(counts / pixels.size)
    assert found.digest != image_statistics(Radiograph(pixels.T, white)).digest


def test_tables_count_what_was_read(data: DataSet) -> None:
    data.image("101").unlink()
    data.table.loc["102", "boneage"] = "nan"
    data.table.loc["103", "boneage"] = "inf"
    data.table.loc["104", "male"] = ""
    labels, ages, intensities, sizes = audit_tables(data.check())
    train = dict(zip(labels.columns, labels.rows[0], strict=True))
    assert train == {
        "split": "train",
        "rows": "24",
        "images": "23",
        "boys": "11",
        "girls": "12",
        "no sex": "1",
        "bone age": "22",
        "NaN": "1",
        "Inf": "1",
    }
    assert [row[0] for row in ages.rows] == ["train", "validation", "test"]
    assert ages.rows[1][1:3] == ("8.5", "31")
    assert len(intensities.rows) == 3
    assert sizes.rows[0] == ("train", "80 × 96", "80 × 96", "80 × 96", "8")


def pictures_of(page: str) -> list[np.ndarray]:
    """Returns the radiographs of a report."""
    found = re.findall(r'"data:image/jpeg;base64,([^"]+)"', page)
    return [cv2.imdecode(np.frombuffer(base64.b64decode(jpeg), np.uint8), 0) for jpeg in found]


def page_of(data: DataSet, folder: Path) -> str:
    return write_report(data.check(), folder).read_text(encoding="utf-8")


def test_the_report_is_one_page_with_plots_and_radiographs_before_and_after_clahe(
    data: DataSet, tmp_path: Path
) -> None:
    page = page_of(data, tmp_path / "report")
    names = sorted(path.name for path in (tmp_path / "report").iterdir())
    assert names == ["findings.csv", "index.html"]
    # The page loads no other files; its only link is the table of findings.
    assert re.findall(r'(?:href|src)="(?!data:)([^"]*)"', page) == ["findings.csv"]
    assert not re.search(r"<script|<link|url\(|@import", page)
    assert page.count('src="data:image/svg+xml') == 4
    pictures = pictures_of(page)
    assert len(pictures) == 18
    for before, after in zip(pictures[::2], pictures[1::2], strict=True):
        assert before.shape == after.shape == (300, 250)
        assert np.abs(before.astype(int) - after).mean() > 2


def test_the_report_lists_every_finding(data: DataSet, tmp_path: Path) -> None:
    for name in data.table["id"][:3]:
        data.image(name).unlink()
    result = data.check()
    write_report(result, tmp_path / "report")
    table = pd.read_csv(tmp_path / "report" / "findings.csv", dtype=str, keep_default_na=False)
    assert len(table) == len(result.findings)
    first = table.iloc[0]
    assert (first["severity"], first["kind"], first["split"]) == ("error", "file-missing", "train")
    assert (first["id"], first["row"]) == ("100", "2")
    assert first["path"].endswith("train/100.png")
    assert first["remedy"]
    page = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    assert all(f"train/{name}.png" in page for name in ("100", "101", "102"))


def test_names_in_the_report_are_text_and_never_markup(data: DataSet, tmp_path: Path) -> None:
    name = "<b onclick=alert(1)>"
    data.image("105").rename(data.folder / "train" / f"{name}.png")
    data.table.loc["105", ["id", "path"]] = [name, f"train/{name}.png"]
    data.table.loc["105", "boneage"] = "<script>"
    page = page_of(data, tmp_path / "report")
    assert "<b onclick" not in page
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_a_data_set_without_any_readable_image_still_gets_a_report(
    data: DataSet, tmp_path: Path
) -> None:
    for name in data.table["id"]:
        data.image(name).write_bytes(b"")
    data.table["boneage"] = ""
    page = page_of(data, tmp_path / "report")
    assert "36 rows, 0 images read" in page


def test_a_report_that_cannot_be_written_is_told_in_one_line(data: DataSet, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BoneageError, match="choose another --report"):
        write_report(data.check(), tmp_path / "file")


def test_a_thousand_real_radiographs_pass_and_leave_no_pixels(radiographs: Path) -> None:
    result = audit(radiographs, workers=2)
    assert result.passed
    assert len(result.rows) == 1000
    assert not [finding for finding in result.findings if finding.kind.startswith("same")]
    assert len(pickle.dumps(result.rows)) < 1000 * len(result.rows)


def test_inverted_real_radiographs_are_found_and_others_are_not(
    radiographs: Path, read: Callable[[Path], np.ndarray]
) -> None:
    files = sorted((radiographs / "train").iterdir())[::5]
    upright = [image_statistics(Radiograph(read(file))).bright_surround > 0.01 for file in files]
    inverted = [
        image_statistics(Radiograph(255 - read(file))).bright_surround > 0.01 for file in files
    ]
    assert np.mean(upright) < 0.02
    assert np.mean(inverted) > 0.95


@pytest.fixture
def read() -> Callable[[Path], np.ndarray]:
    return lambda path: cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)


@pytest.mark.parametrize(("young", "told"), [(0, True), (2, True), (3, False), (24, False)])
def test_few_young_children_are_told_of_and_many_are_not(
    data: DataSet, young: int, told: bool
) -> None:
    of_train = data.table["split"] == "train"
    data.table.loc[of_train, "boneage"] = ["59"] * young + ["60"] * (24 - young)
    result = data.check()
    _, ages, *_ = audit_tables(result)
    assert dict(zip(ages.columns, ages.rows[0], strict=True))["<60"] == f"{young / 24:.0%}"
    said = [finding.message for finding in result.findings if finding.kind == "few-young"]
    assert said == ([f"{young} of 24 ({young / 24:.0%}) under 60 months"] if told else [])
