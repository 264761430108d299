import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import cv2
import numpy as np
import openpyxl
import pandas as pd
import pytest
from pydicom.data import get_testdata_file

from boneage_cli.datasets.drawn_hands import draw_hand
from boneage_cli.datasets.local import fetch_local
from boneage_cli.datasets.manifest import read_manifest
from boneage_cli.datasets.source import read_source
from boneage_cli.errors import BoneageError, BoneageWarning

TRAIN = range(1377, 1397)
VALIDATION = range(1400, 1404)
BOYS, GIRLS = range(4360, 4363), range(4460, 4463)


def months(number: int) -> float:
    return 12 + number % 200


def is_male(number: int) -> bool:
    return number in BOYS if number in (*BOYS, *GIRLS) else number % 2 == 0


def labels(header: str, numbers, row) -> str:
    return "\n".join([header, *(row(number) for number in numbers)]) + "\n"


def kaggle_labels(numbers, header="id,boneage,male") -> str:
    return labels(header, numbers, lambda n: f"{n},{months(n):g},{is_male(n)}")


def sexes_only(numbers) -> str:
    return labels("Case ID,Sex", numbers, lambda n: f"{n},{'M' if is_male(n) else 'F'}")


def ground_truth(numbers, decimals=0.25) -> bytes:
    book = openpyxl.Workbook()
    book.active.append(("Case ID", "Sex", "Ground truth bone age (months)"))
    for n in numbers:
        age = 168.93 if n == 4360 and decimals else months(n) + decimals
        book.active.append((n, "M" if is_male(n) else "F", age))
    stream = io.BytesIO()
    book.save(stream)
    return stream.getvalue()


def zipped(files) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


def lay(folder, files) -> None:
    for name, content in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)


@pytest.fixture
def images(png):
    def make(pattern: str, numbers) -> dict[str, bytes]:
        return {pattern.format(number): png(number) for number in numbers}

    return make


TEST = [*BOYS, *GIRLS]


@pytest.fixture
def layouts(images):
    """Returns the files of every layout in use."""
    return {
        "rsna": {
            "Bone+Age+Training+Set.zip": zipped(images("boneage-training-dataset/{}.png", TRAIN)),
            "Bone+Age+Training+Set+Annotations.zip": zipped({"train.csv": kaggle_labels(TRAIN)}),
            "Bone+Age+Validation+Set.zip": zipped(
                {
                    "Bone Age Validation Set/Validation Dataset.csv": labels(
                        "Image ID,male,Bone Age (months)",
                        VALIDATION,
                        lambda n: f"{n},{str(is_male(n)).upper()},{months(n):g}",
                    ),
                    "Bone Age Validation Set/boneage-validation-dataset-1.zip": zipped(
                        images("boneage-validation-dataset-1/{}.png", VALIDATION[:2])
                    ),
                    "Bone Age Validation Set/boneage-validation-dataset-2.zip": zipped(
                        images("boneage-validation-dataset-2/{}.png", VALIDATION[2:])
                    ),
                    "__MACOSX/Bone Age Validation Set/._1400.png": b"resource fork",
                }
            ),
            "Bone+Age+Test+Set.zip": zipped(
                {
                    **images("Bone Age Test Set/Test Set Images/{}.png", TEST),
                    "Bone Age Test Set/Bone age ground truth.xlsx": ground_truth(TEST),
                }
            ),
        },
        "kmader": {
            **images("boneage-training-dataset/boneage-training-dataset/{}.png", TRAIN),
            **images("boneage-test-dataset/boneage-test-dataset/{}.png", TEST),
            "boneage-training-dataset.csv": kaggle_labels(TRAIN),
            "boneage-test-dataset.csv": sexes_only(TEST),
        },
        "ipythonx": {
            **images("RSNA_train/images/{}.png", TRAIN),
            **images("RSNA_val/images/{}.png", VALIDATION),
            **images("RSNA_test/images/{}.png", TEST),
            "RSNA_Annotations/BONEAGE/boneage_train.csv": kaggle_labels(TRAIN, "ID,Boneage,Male"),
            "RSNA_Annotations/BONEAGE/boneage_val.csv": kaggle_labels(
                VALIDATION, "ID,Boneage,Male"
            ),
            "RSNA_Annotations/BONEAGE/gender_test.csv": labels(
                "ID,Male", TEST, lambda n: f"{n},{is_male(n)}"
            ),
        },
        "S1 with its crops": {
            **images("train/{}.png", TRAIN),
            **images("validation/{}.png", VALIDATION),
            **images("train/carpal/{}.png", TRAIN),
            **images("train/heatmaps/{}.png", TRAIN),
            **images("validation_CLAHE/{}.png", VALIDATION),
            "train.csv": kaggle_labels(TRAIN),
            "validation.csv": kaggle_labels(VALIDATION),
        },
        "S2 by file name": {
            **images("scans/hand-{}.png", TRAIN),
            "labels.csv": labels(
                "id,filename,boneage,gender",
                TRAIN,
                lambda n: f"{n},hand-{n}.png,{months(n)},{'male' if is_male(n) else 'female'}",
            ),
        },
        "Deeplasia": {
            **images("bone_age/{}.png", [*TRAIN, *TEST]),
            "annotation.csv": labels(
                "image_ID,dir,patient_ID,sex,bone_age",
                [*TRAIN, *TEST],
                lambda n: f"{n}.png,bone_age,P{n // 2},{'M' if is_male(n) else 'F'},{months(n)}",
            ),
        },
        "one table with splits": {
            **images("{}.png", [*TRAIN, *VALIDATION]),
            "labels.csv": labels(
                "id,boneage,male,split",
                [*TRAIN, *VALIDATION],
                lambda n: f"{n},{months(n)},{is_male(n)},{'val' if n in VALIDATION else 'train'}",
            ),
        },
        "folders split, one table": {
            **images("train/{}.png", TRAIN),
            **images("val/{}.png", VALIDATION),
            "boneage-training-dataset.csv": kaggle_labels([*TRAIN, *VALIDATION]),
        },
        "tables split, one folder": {
            **images("boneage-training-dataset/{}.png", [*TRAIN, *VALIDATION]),
            "my_train.csv": kaggle_labels(TRAIN),
            "my_val.csv": kaggle_labels(VALIDATION),
        },
    }


EXPECTED = {
    "rsna": (TRAIN, VALIDATION, TEST),
    "kmader": (TRAIN, (), TEST),
    "ipythonx": (TRAIN, VALIDATION, TEST),
    "S1 with its crops": (TRAIN, VALIDATION, ()),
    "S2 by file name": (TRAIN, (), ()),
    "Deeplasia": (TRAIN, (), TEST),
    "one table with splits": (TRAIN, VALIDATION, ()),
    "folders split, one table": (TRAIN, VALIDATION, ()),
    "tables split, one folder": (TRAIN, VALIDATION, ()),
}


def ids(manifest: pd.DataFrame, split: str) -> list[int]:
    return sorted(int(name) for name in manifest.loc[manifest["split"] == split, "id"])


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "one zip"])
@pytest.mark.parametrize("name", EXPECTED)
def test_every_layout_gives_its_splits_labels_and_images(name, packed, layouts, png, tmp_path):
    source = tmp_path / "mine"
    if packed:
        source = tmp_path / "mine.zip"
        source.write_bytes(zipped(layouts[name]))
    else:
        lay(source, layouts[name])
    fetched = fetch_local([source], tmp_path / "data", validation_fraction=0)
    manifest = read_manifest(tmp_path / "data")
    for split, numbers in zip(("train", "validation", "test"), EXPECTED[name], strict=True):
        assert ids(manifest, split) == sorted(numbers)
    for _, row in manifest.iterrows():
        number = int(row["id"])
        assert Path(row["path"]).read_bytes() == png(number)
        assert row["male"] == is_male(number)
        if row["split"] != "test":
            assert row["boneage"] == months(number)
    assert not fetched.warnings
    assert sorted(entry.name for entry in (tmp_path / "data").iterdir()) == sorted(
        [
            "SOURCE.json",
            *(f"{split}{end}" for split in set(manifest["split"]) for end in ("", ".csv")),
        ]
    )


def test_images_are_linked_or_copied_and_the_source_stays(layouts, tmp_path):
    lay(tmp_path / "mine", layouts["kmader"])
    linked = fetch_local([tmp_path / "mine"], tmp_path / "linked").manifest
    assert all(Path(path).is_symlink() for path in linked["path"])
    copied = fetch_local([tmp_path / "mine"], tmp_path / "copied", copy=True).manifest
    assert not any(Path(path).is_symlink() for path in copied["path"])
    for name, content in layouts["kmader"].items():
        assert (tmp_path / "mine" / name).exists(), content


def test_a_missing_validation_split_is_made_and_told(images, tmp_path):
    numbers = range(1000, 1400)
    lay(tmp_path / "mine", images("train/{}.png", numbers))
    (tmp_path / "mine" / "train.csv").write_text(kaggle_labels(numbers))
    fetched = fetch_local([tmp_path / "mine"], tmp_path / "data")
    again = fetch_local([tmp_path / "mine"], tmp_path / "again")
    assert len(ids(fetched.manifest, "validation")) == 40
    assert ids(fetched.manifest, "validation") == ids(again.manifest, "validation")
    expected = "40 of 400 training radiographs, stratified by sex and age, fraction 0.1, seed 0"
    assert fetched.notes == [f"The source has no validation split; one was made: {expected}."]
    assert json.loads((tmp_path / "data" / "SOURCE.json").read_text())["validation"] == expected


def test_a_patient_stays_on_one_side_of_a_validation_split(images, tmp_path):
    numbers = range(1000, 1100)
    lay(tmp_path / "mine", images("{}.png", numbers))
    (tmp_path / "mine" / "labels.csv").write_text(
        labels(
            "image_ID,patient_ID,sex,bone_age", numbers, lambda n: f"{n}.png,{n % 30},M,{months(n)}"
        )
    )
    manifest = fetch_local([tmp_path / "mine"], tmp_path / "data").manifest
    assert len(ids(manifest, "validation")) > 0
    assert (manifest.groupby("patient")["split"].nunique() == 1).all()


def test_a_test_split_without_labels_stays_with_empty_bone_ages(layouts, tmp_path):
    lay(tmp_path / "mine", layouts["kmader"])
    fetched = fetch_local([tmp_path / "mine"], tmp_path / "data")
    test = read_manifest(tmp_path / "data", "test")
    assert test["boneage"].isna().all()
    assert test["male"].notna().all()
    assert fetched.source.label_version == "none"
    assert not fetched.warnings


@pytest.mark.parametrize(
    ("decimals", "version"), [(0.25, "official-decimal"), (0, "integer")], ids=["official", "whole"]
)
def test_the_label_version_of_the_test_set_is_recorded(decimals, version, layouts, tmp_path):
    files = {**layouts["kmader"], "Bone age ground truth.xlsx": ground_truth(TEST, decimals)}
    lay(tmp_path / "mine", files)
    fetched = fetch_local([tmp_path / "mine"], tmp_path / "data")
    assert fetched.source.label_version == version
    assert fetched.manifest.loc[fetched.manifest["split"] == "test", "boneage"].notna().all()


def test_one_wrong_sex_does_not_put_the_test_set_into_training(images, tmp_path):
    numbers = [*range(4360, 4370), *range(4460, 4470)]
    lay(tmp_path / "mine", images("{}.png", [*TRAIN, *numbers]))
    (tmp_path / "mine" / "labels.csv").write_text(
        labels(
            "id,boneage,male",
            [*TRAIN, *numbers],
            lambda n: f"{n},{months(n)},{4360 < n < 4460}",
        )
    )
    manifest = fetch_local([tmp_path / "mine"], tmp_path / "data").manifest
    assert ids(manifest, "test") == numbers


def test_impossible_ages_are_told_when_a_data_set_is_made(images, tmp_path):
    lay(tmp_path / "mine", images("{}.png", TRAIN))
    (tmp_path / "mine" / "labels.csv").write_text(
        labels("id,boneage,male", TRAIN, lambda n: f"{n},{126500 if n == TRAIN[0] else 120},1")
    )
    with pytest.warns(BoneageWarning, match="known bone ages are impossible .* 126500 months"):
        fetch_local([tmp_path / "mine"], tmp_path / "data")


def test_both_label_versions_together_are_refused(layouts, tmp_path):
    files = {
        **layouts["kmader"],
        "Bone age ground truth.xlsx": ground_truth(TEST),
        "test.csv": kaggle_labels(TEST),
    }
    lay(tmp_path / "mine", files)
    with pytest.raises(BoneageError, match=r"differ on 4360: bone age .* leave one table out"):
        fetch_local([tmp_path / "mine"], tmp_path / "data")


def test_dicom_files_of_an_archive_are_known_by_their_mark(tmp_path):
    mark = bytes(128) + b"DICM" + bytes(8)
    names = ("IM0001", "1.2.840.5.7", "hand.ct")
    lay(tmp_path / "archive", {**dict.fromkeys(names, mark), "DICOMDIR": mark, "notes": b"text"})
    table = "id,boneage,sex,split\n" + "".join(f"{n},120,F,test\n" for n in ("IM0001", names[1]))
    (tmp_path / "readings.csv").write_text(table + "hand.ct,100,M,test\n")
    fetched = fetch_local([tmp_path / "archive", tmp_path / "readings.csv"], tmp_path / "data")
    assert sorted(fetched.manifest["id"]) == sorted(names)
    assert {Path(path).name for path in fetched.manifest["path"]} == {f"{n}.dcm" for n in names}
    assert all(Path(path).read_bytes() == mark for path in fetched.manifest["path"])


def test_what_matches_nothing_is_counted_and_listed(images, tmp_path):
    lay(tmp_path / "mine", images("train/{}.png", [*TRAIN, 5000, 5001]))
    (tmp_path / "mine" / "train.csv").write_text(kaggle_labels([*TRAIN, 6000]) + "5001,,True\n")
    fetched = fetch_local([tmp_path / "mine"], tmp_path / "data", validation_fraction=0)
    assert ids(fetched.manifest, "train") == list(TRAIN)
    assert fetched.warnings == [
        "2 × image without a bone age, left out (such as 5000, 5001).",
        "1 × label without an image, left out (such as 6000).",
    ]
    listed = pd.read_csv(tmp_path / "data" / "unmatched.csv")
    assert sorted(zip(listed["id"], listed["problem"], strict=True)) == [
        (5000, "image without a bone age"),
        (5001, "image without a bone age"),
        (6000, "label without an image"),
    ]


def test_sizes_before_squashing_join_the_table(images, tmp_path):
    lay(tmp_path / "mine", images("train/{}.png", TRAIN))
    (tmp_path / "train.csv").write_text(kaggle_labels(TRAIN))
    (tmp_path / "native-size.csv").write_text(
        labels("id,width,height", [*TRAIN, 9999], lambda n: f"{n},{1000 + n},2044")
    )
    fetched = fetch_local(
        [tmp_path / "mine", tmp_path / "train.csv", tmp_path / "native-size.csv"], tmp_path / "data"
    )
    manifest = fetched.manifest
    assert list(manifest["width"]) == [1000 + int(name) for name in manifest["id"]]
    assert not fetched.warnings


def test_a_table_in_a_folder_that_is_not_about_labels_is_left_alone_and_named(layouts, tmp_path):
    lay(tmp_path / "mine", {**layouts["kmader"], "keypoints.csv": "id,x,y\n1377,1,2\n"})
    fetched = fetch_local([tmp_path / "mine"], tmp_path / "data")
    assert any("mine/keypoints.csv" in note for note in fetched.notes)


def test_a_table_given_by_name_must_be_about_labels(layouts, tmp_path):
    lay(tmp_path / "mine", layouts["kmader"])
    (tmp_path / "keypoints.csv").write_text("id,x,y\n1377,1,2\n")
    with pytest.raises(BoneageError, match=r"keypoints\.csv: headings 'id', 'x', 'y'; wanted"):
        fetch_local([tmp_path / "mine", tmp_path / "keypoints.csv"], tmp_path / "data")


def test_of_two_images_with_one_id_the_first_named_is_kept_and_told(images, png, tmp_path):
    lay(tmp_path / "good", images("train/{}.png", TRAIN))
    lay(tmp_path / "small", {"train/1377.png": png(1)})
    (tmp_path / "train.csv").write_text(kaggle_labels(TRAIN))
    for order, number in ((("good", "small"), 1377), (("small", "good"), 1)):
        paths = [*(tmp_path / name for name in order), tmp_path / "train.csv"]
        target = tmp_path / f"first-{order[0]}"
        fetched = fetch_local(paths, target, validation_fraction=0)
        assert (target / "train" / "1377.png").read_bytes() == png(number)
        assert "Found twice: 1 radiographs" in fetched.warnings[0]


@pytest.mark.parametrize("written", ["site-b/{}.png", "site-b\\{}.png", "/elsewhere/site-b/{}.png"])
def test_of_two_images_with_one_name_the_one_in_the_folder_that_the_table_names_is_kept(
    written, png, tmp_path
):
    files = {f"site-a/{number}.png": png(number) for number in (1, 2, 3)}
    files |= {f"site-b/{number}.png": png(10 * number) for number in (1, 2)}
    rows = [
        *(f"{written.format(number)},{100 + number},M" for number in (1, 2)),
        "site-a/3.png,90,F",
    ]
    lay(tmp_path / "mine", {**files, "labels.csv": "\n".join(["path,boneage,sex", *rows])})
    fetched = fetch_local([tmp_path / "mine"], tmp_path / "data", validation_fraction=0)
    kept = {row.id: Path(row.path).read_bytes() for row in fetched.manifest.itertuples()}
    assert kept == {"1": png(10), "2": png(20), "3": png(3)}
    assert "not mine/site-a/1.png" in fetched.warnings[0]


def test_an_id_in_the_folders_of_two_splits_is_kept_twice_and_told(images, tmp_path):
    lay(tmp_path / "mine", images("train/{}.png", TRAIN) | images("val/{}.png", [1377]))
    (tmp_path / "mine" / "labels.csv").write_text(kaggle_labels(TRAIN))
    fetched = fetch_local([tmp_path / "mine"], tmp_path / "data")
    assert (fetched.manifest["id"] == "1377").sum() == 2
    assert "In the folders of several splits: 1 ids" in fetched.warnings[0]


def test_a_second_run_changes_nothing(layouts, tmp_path):
    lay(tmp_path / "mine", layouts["rsna"])
    first = fetch_local([tmp_path / "mine"], tmp_path / "data")
    stamps = {file: file.stat().st_mtime_ns for file in (tmp_path / "data").rglob("*")}
    second = fetch_local([tmp_path / "mine"], tmp_path / "data")
    assert second.unchanged
    assert second.source == first.source
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "data").rglob("*")} == stamps


def test_a_run_after_an_interrupted_one_places_only_what_is_missing(layouts, png, tmp_path):
    lay(tmp_path / "mine", layouts["rsna"])
    data = tmp_path / "data"
    fetch_local([tmp_path / "mine"], data)
    record = json.loads((data / "SOURCE.json").read_text())
    (data / "SOURCE.json").write_text(json.dumps({**record, "complete": False}))
    (data / "train.csv").unlink()
    (data / "train" / "1378.png").unlink()
    kept = (data / "train" / "1377.png").stat().st_mtime_ns
    fetched = fetch_local([tmp_path / "mine"], data)
    assert fetched.source.complete
    assert (data / "train" / "1378.png").read_bytes() == png(1378)
    assert (data / "train" / "1377.png").stat().st_mtime_ns == kept


def test_another_data_set_is_not_overwritten_unless_forced(layouts, tmp_path):
    for name in ("kmader", "ipythonx"):
        lay(tmp_path / name, layouts[name])
    data = tmp_path / "data"
    fetch_local([tmp_path / "kmader"], data)
    before = (data / "train.csv").read_bytes()
    with pytest.raises(BoneageError, match=r"other files.*--force.*--to"):
        fetch_local([tmp_path / "ipythonx"], data)
    with pytest.raises(BoneageError, match=r"validation fraction 0\.1; replace it with --force"):
        fetch_local([tmp_path / "kmader"], data, validation_fraction=0.2)
    assert (data / "train.csv").read_bytes() == before
    fetched = fetch_local([tmp_path / "ipythonx"], data, force=True)
    assert ids(fetched.manifest, "validation") == list(VALIDATION)


def test_labels_that_changed_since_are_noticed(layouts, tmp_path):
    lay(tmp_path / "mine", layouts["kmader"])
    fetch_local([tmp_path / "mine"], tmp_path / "data")
    table = tmp_path / "mine" / "boneage-training-dataset.csv"
    table.write_text(table.read_text().replace(",True", ",TRUE "))
    with pytest.raises(BoneageError, match="files that have changed since"):
        fetch_local([tmp_path / "mine"], tmp_path / "data")


def test_a_folder_of_the_users_own_is_never_touched(layouts, tmp_path):
    lay(tmp_path / "mine", layouts["kmader"])
    lay(tmp_path / "thesis", {"train.csv": "mine"})
    for force in (False, True):
        with pytest.raises(BoneageError, match=r"thesis: holds files but no SOURCE\.json"):
            fetch_local([tmp_path / "mine"], tmp_path / "thesis", force=force)
    assert (tmp_path / "thesis" / "train.csv").read_text() == "mine"


def test_a_failed_run_leaves_nothing_behind(layouts, tmp_path):
    lay(tmp_path / "mine", layouts["rsna"] | {"train.csv": "id,boneage,male\n1377,999,True\n"})
    with pytest.raises(BoneageError, match="1377: bone age"):
        fetch_local([tmp_path / "mine"], tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_the_new_data_set_may_lie_within_its_source(layouts, tmp_path):
    lay(tmp_path / "data", layouts["kmader"])
    fetch_local([tmp_path / "data"], tmp_path / "data" / "local")
    again = fetch_local([tmp_path / "data"], tmp_path / "data" / "local")
    assert again.unchanged
    with pytest.raises(BoneageError, match="own folder"):
        fetch_local([tmp_path / "data" / "local" / "train"], tmp_path / "data" / "local")


def test_a_folder_that_cannot_be_read_is_told_of(layouts, tmp_path, monkeypatch):
    lay(tmp_path / "mine", layouts["kmader"])
    closed = tmp_path / "mine" / "closed"
    closed.mkdir()
    scandir = os.scandir

    def refusing(folder):
        if str(folder) == str(closed):
            raise PermissionError(13, "Permission denied", str(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(BoneageError, match=r"closed: cannot be read \(Permission denied\)"):
        fetch_local([tmp_path / "mine"], tmp_path / "data")


def test_linked_folders_are_followed_and_never_in_circles(layouts, tmp_path):
    lay(tmp_path / "disk", layouts["kmader"])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "kaggle").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "back").symlink_to(tmp_path / "mine")
    fetched = fetch_local([tmp_path / "mine"], tmp_path / "data")
    assert len(fetched.manifest) == 26
    assert not fetched.warnings
    assert fetch_local([tmp_path / "mine"], tmp_path / "data").unchanged
    image = next((tmp_path / "disk").rglob("1377.png"))
    image.with_name("1999.png").write_bytes(image.read_bytes())
    with pytest.raises(BoneageError, match="--force"):
        fetch_local([tmp_path / "mine"], tmp_path / "data")


def test_zips_of_one_name_within_zips_are_kept_apart(images, tmp_path):
    for number, name in ((1377, "one"), (1378, "two")):
        inner = zipped(images("train/{}.png", [number]))
        lay(tmp_path / name, {"set.zip": zipped({"images.zip": inner})})
    (tmp_path / "labels.csv").write_text(kaggle_labels([1377, 1378]))
    paths = [tmp_path / "one" / "set.zip", tmp_path / "two" / "set.zip", tmp_path / "labels.csv"]
    fetched = fetch_local(paths, tmp_path / "data", validation_fraction=0)
    assert ids(fetched.manifest, "train") == [1377, 1378]
    assert not fetched.warnings


@pytest.mark.filterwarnings("ignore:3 of 3 known bone ages are impossible")
def test_impossible_bone_ages_are_left_for_check_data_to_find(images, tmp_path):
    lay(tmp_path / "mine", images("train/{}.png", [1, 2, 3]))
    (tmp_path / "mine" / "train.csv").write_text("id,boneage,male\n1,inf,M\n2,-5,M\n3,1e9,M\n")
    fetched = fetch_local([tmp_path / "mine"], tmp_path / "data", validation_fraction=0)
    assert list(fetched.manifest["boneage"]) == [float("inf"), -5, 1e9]


def test_the_source_record_tells_files_digests_and_terms(layouts, tmp_path):
    archive = tmp_path / "mine.zip"
    archive.write_bytes(zipped(layouts["kmader"]))
    fetch_local([archive], tmp_path / "data")
    source = read_source(tmp_path / "data")
    assert source is not None
    assert source.name == "local"
    assert source.complete
    assert source.files[0]["path"] == str(archive)
    assert len(source.files) == 3
    assert all(len(file["sha256"]) == 64 for file in source.files)
    assert "no redistribution" in source.terms
    assert "Radiology 2019;290:498" in source.citation
    assert source.splits["test"] == {"images": 6, "labels": 0}


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"labels.csv": "id,boneage,male\n1,2,M\n"}, "no radiographs found"),
        ({"1.png": b"x"}, "no table of labels found"),
        ({"1.png": b"x", "a.csv": "id,x\n1,2\n"}, r"a\.csv: headings 'id', 'x'; wanted"),
        (
            {"0001.png": b"x", "labels.csv": "id,boneage,male\n1,2,M\n"},
            "images are named like '0001', the ids read like '1'",
        ),
        ({"1.png": b"x", "labels.csv": "id,male\n1,M\n"}, "no radiograph has a bone age"),
        (
            {"1.png": b"x", "labels.csv": "id,boneage,male\n1,2,M\n1,3,M\n"},
            r"labels\.csv: lists 1 twice: bone age 2 and 3",
        ),
        (
            {"1.png": b"x", "train.csv": "id,boneage\n1,2\n", "val.csv": "id,boneage\n1,2\n"},
            r"1: listed in mine/train\.csv and in mine/val\.csv",
        ),
        (
            {"train/1.png": b"x", "val.csv": "id,boneage\n1,2\n"},
            r"train/1\.png: the folder says train, mine/val\.csv says validation",
        ),
    ],
)
def test_what_makes_no_data_set_is_told_in_one_line(files, says, tmp_path):
    lay(tmp_path / "mine", files)
    with pytest.raises(BoneageError, match=says) as caught:
        fetch_local([tmp_path / "mine"], tmp_path / "data")
    assert "\n" not in str(caught.value)


def test_damage_within_zips_is_named_by_its_place_in_them(images, tmp_path):
    damaged = bytearray(zipped({"1377.png": bytes(range(256)) * 40}))
    damaged[500] ^= 0xFF
    for name, content, says in (
        ("found.zip", b"no zip", r"found\.zip/more/inner\.zip: not a readable zip"),
        ("placed.zip", bytes(damaged), r"placed\.zip/more/inner\.zip: '1377\.png' is damaged"),
    ):
        (tmp_path / name).write_bytes(
            zipped({"more/inner.zip": content, "labels.csv": kaggle_labels([1377])})
        )
        with pytest.raises(BoneageError, match=says) as caught:
            fetch_local([tmp_path / name], tmp_path / "data")
        assert str(tmp_path / "data") not in str(caught.value)


def test_zips_within_zips_are_unpacked_to_a_stated_depth(images, tmp_path):
    content = zipped(images("{}.png", [1377]))
    (tmp_path / "labels.csv").write_text(kaggle_labels([1377]))
    for depth in (2, 3, 4):
        content = zipped({f"{depth}.zip": content})
        (tmp_path / "set.zip").write_bytes(content)
        paths = [tmp_path / "set.zip", tmp_path / "labels.csv"]
        if depth == 4:
            with pytest.raises(
                BoneageError, match=r"set\.zip/4\.zip/3\.zip/2\.zip: within 3 other"
            ):
                fetch_local(paths, tmp_path / "4")
        else:
            made = fetch_local(paths, tmp_path / str(depth), validation_fraction=0)
            assert ids(made.manifest, "train") == [1377]


def test_paths_of_no_use_are_named(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(BoneageError, match=r"notes\.txt: neither a folder, a zip, a table"):
        fetch_local([tmp_path / "notes.txt"], tmp_path / "data")
    with pytest.raises(BoneageError, match=r"gone: no such file or folder"):
        fetch_local([tmp_path / "gone"], tmp_path / "data")


def test_the_same_numbers_elsewhere_are_not_taken_for_rsnas_test_set(images, tmp_path):
    numbers = range(4300, 4600)
    lay(tmp_path / "mine", images("{}.png", numbers))
    (tmp_path / "mine" / "labels.csv").write_text(
        labels("id,boneage,male", numbers, lambda n: f"{n},{months(n)},{n % 2 == 0}")
    )
    fetched = fetch_local([tmp_path / "mine"], tmp_path / "data", validation_fraction=0)
    assert set(fetched.manifest["split"]) == {"train"}
    assert fetched.notes == [
        "No name of a file or folder states the split of 300 radiographs, taken as train."
    ]


def test_the_real_radiographs_give_12411_labelled_ones(shared_data, tmp_path):
    names = (
        "rsna-train-299-a.zip",
        "rsna-train-299-b.zip",
        "boneage-training-dataset.csv",
        "native-size.csv",
    )
    fetched = fetch_local([shared_data / name for name in names], tmp_path / "data")
    assert not fetched.warnings
    manifest = read_manifest(tmp_path / "data")
    assert len(manifest) == 12_411
    assert manifest[["boneage", "male", "width", "height"]].notna().all(axis=None)
    assert manifest["boneage"].between(1, 228).all()
    parts = manifest.groupby("split")
    assert parts.size().to_dict() == {"train": 11_170, "validation": 1_241}
    assert abs(parts["boneage"].mean().diff().iloc[-1]) < 0.5
    assert abs(parts["boneage"].std().diff().iloc[-1]) < 0.5
    assert abs(parts["male"].mean().diff().iloc[-1]) < 0.005


def test_the_real_native_radiographs_come_with_their_table(shared_data, tmp_path):
    fetched = fetch_local([shared_data / "rsna-native-150.zip"], tmp_path / "data")
    assert len(fetched.manifest) == 150
    assert fetched.manifest["boneage"].notna().all()
    assert not fetched.warnings


def test_an_id_of_two_radiographs_is_refused_and_neither_is_lost(images, tmp_path):
    table = labels(
        "id,filename,boneage,male", (1, 2), lambda n: f"7,{n}.png,{months(n):g},{is_male(n)}"
    )
    lay(tmp_path / "from", {**images("{}.png", (1, 2)), "labels.csv": table})
    with pytest.raises(BoneageError, match=r"7: the id of two radiographs, .*1\.png and .*2\.png"):
        fetch_local([tmp_path / "from"], tmp_path / "to")
    assert not (tmp_path / "to").exists()


def test_dicom_files_without_a_suffix_are_found_in_zips_as_in_folders(tmp_path):
    content = Path(get_testdata_file("CT_small.dcm")).read_bytes()
    members = {"IM0001": content, "IM0002": content, "DICOMDIR": content, "notes": b"text"}
    table = labels("id,boneage,male", (1, 2), lambda n: f"IM000{n},{100 + n},True")
    lay(tmp_path / "loose", {**members, "labels.csv": table})
    lay(tmp_path / "zipped", {"set.zip": zipped(members), "labels.csv": table})
    for name in ("loose", "zipped"):
        fetch_local([tmp_path / name], tmp_path / "to" / name, validation_fraction=0)
        manifest = read_manifest(tmp_path / "to" / name, "train")
        assert manifest["id"].tolist() == ["IM0001", "IM0002"]
        assert all(Path(path).read_bytes() == content for path in manifest["path"])


def test_tables_that_differ_on_a_sex_are_refused_and_both_are_told(images, tmp_path):
    lay(tmp_path / "mine", images("train/{}.png", TRAIN))
    first = TRAIN[0]
    (tmp_path / "one.csv").write_text(kaggle_labels(TRAIN))
    other = labels("id,male", TRAIN, lambda n: f"{n},{is_male(n) ^ (n == first)}")
    (tmp_path / "two.csv").write_text(other)
    paths = [tmp_path / name for name in ("mine", "one.csv", "two.csv")]
    sexes = ("male", "female") if is_male(first) else ("female", "male")
    with pytest.raises(BoneageError, match=rf"differ on {first}: sex {sexes[0]} and {sexes[1]};"):
        fetch_local(paths, tmp_path / "data")
    # An unknown sex does not contradict a known one.
    unknown = labels("id,male", TRAIN, lambda n: f"{n},{'' if n == first else is_male(n)}")
    (tmp_path / "two.csv").write_text(unknown)
    manifest = fetch_local(paths, tmp_path / "data").manifest.set_index("id")
    assert bool(manifest.loc[str(first), "male"]) == is_male(first)


def test_radiographs_are_listed_by_the_numbers_that_their_ids_are(images, tmp_path):
    numbers = (10, 2, 1, 33, 4)
    lay(tmp_path / "mine", images("train/{}.png", numbers))
    (tmp_path / "train.csv").write_text(kaggle_labels(numbers))
    found = fetch_local(
        [tmp_path / "mine", tmp_path / "train.csv"], tmp_path / "data", validation_fraction=0
    )
    assert found.manifest["id"].tolist() == ["1", "2", "4", "10", "33"]


def test_names_that_are_not_utf_8_are_kept(tmp_path):
    source = tmp_path / os.fsdecode(b"m\xe4rz")
    source.mkdir()
    hand = cv2.imencode(".png", draw_hand(120, True, np.random.default_rng(0)).pixels)[1]
    for name in (b"1.png", b"h\xe4nd.png", b"ohne \xfc.png"):
        (source / os.fsdecode(name)).write_bytes(hand.tobytes())
    # As Windows writes names.
    (source / "train.csv").write_bytes(b"id,boneage,male\n1,120,True\n")
    command = [sys.executable, "-m", "boneage_cli"]
    fetched = subprocess.run(
        [*command, "fetch", "local", source, "--to", tmp_path / "made"], capture_output=True
    )
    assert fetched.returncode == 0, fetched.stderr
    assert len((tmp_path / "made" / "unmatched.csv").read_bytes().splitlines()) == 3
    assert b"h\xe4nd.png" in (tmp_path / "made" / "unmatched.csv").read_bytes()
    (tmp_path / "made" / "train" / "1.png").rename(
        tmp_path / "made" / "train" / os.fsdecode(b"\xe4.png")
    )
    table = tmp_path / "made" / "train.csv"
    table.write_bytes(table.read_bytes().replace(b"train/1.png", b"train/\xe4.png"))
    report = ["check-data", "--data", tmp_path / "made", "--report", tmp_path / "report"]
    checked = subprocess.run([*command, *report], capture_output=True)
    assert b"Traceback" not in checked.stderr
    assert b"image-missing" not in checked.stdout
    assert (tmp_path / "report" / "index.html").read_bytes().decode()
