import hashlib
import io
import zipfile
from dataclasses import replace
from pathlib import Path

import openpyxl
import pandas as pd
import pytest

from boneage_cli.datasets.manifest import read_manifest
from boneage_cli.datasets.rsna import ARCHIVES, BASE_URL, Archive, fetch_rsna
from boneage_cli.datasets.source import read_source
from boneage_cli.errors import BoneageError

TRAIN, VALIDATION, TEST = (1377, 1378, 1379, 1380), (1386, 1392, 1397, 1401), (4360, 4460)


def zipped(files) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


@pytest.fixture
def contents(png) -> dict[str, bytes]:
    """RSNA's archives in their real layouts, with few tiny radiographs."""

    def images(folder, numbers):
        return {f"{folder}/{number}.png": png(number) for number in numbers}

    book = openpyxl.Workbook()
    book.active.append(("Case ID", "Sex", "Ground truth bone age (months)"))
    book.active.append((4360, "M", 168.93))
    book.active.append((4460, "F", 100))
    truth = io.BytesIO()
    book.save(truth)
    top = "Bone Age Validation Set"
    inner = "boneage-validation-dataset"
    return {
        "Bone+Age+Training+Set.zip": zipped(images("boneage-training-dataset", TRAIN)),
        "Bone+Age+Training+Set+Annotations.zip": zipped(
            {
                "train.csv": "id,boneage,male\n1377,180,False\n1378,12,False\n1379,94,False\n"
                "1380,120,True\n"
            }
        ),
        "Bone+Age+Validation+Set.zip": zipped(
            {
                f"{top}/Validation Dataset.csv": "Image ID,male,Bone Age (months)\n1386,TRUE,30\n"
                "1392,TRUE,162\n1397,FALSE,18\n1401,FALSE,132\n",
                f"{top}/{inner}-1.zip": zipped(images(f"{inner}-1", VALIDATION[:2])),
                f"{top}/{inner}-2.zip": zipped(images(f"{inner}-2", VALIDATION[2:])),
            }
        ),
        "Bone+Age+Test+Set.zip": zipped(
            images("Bone Age Test Set/Test Set Images", TEST)
            | {"Bone Age Test Set/Bone age ground truth.xlsx": truth.getvalue()}
        ),
    }


def listed(contents) -> list[Archive]:
    """Returns RSNA's list of archives with sizes and digests of the tiny ones; one is unknown."""
    return [
        replace(
            archive,
            bytes=len(contents[archive.name]),
            sha256=archive.sha256 and hashlib.sha256(contents[archive.name]).hexdigest(),
        )
        for archive in ARCHIVES
    ]


@pytest.fixture
def archives(contents) -> list[Archive]:
    return listed(contents)


@pytest.fixture
def fetch(server, contents, archives, tmp_path):
    server.files = contents

    def run(**options):
        known = {"accept_terms": True, "base_url": server.url, "archives": archives, "wait": 0}
        return fetch_rsna(tmp_path / "rsna", **(known | options))

    return run


def test_all_three_splits_arrive_with_their_labels(fetch, png, tmp_path):
    fetched = fetch()
    manifest = read_manifest(tmp_path / "rsna")
    found = {split: set(map(int, rows["id"])) for split, rows in manifest.groupby("split")}
    assert found == {"train": set(TRAIN), "validation": set(VALIDATION), "test": set(TEST)}
    assert manifest[["boneage", "male"]].notna().all(axis=None)
    for _, row in manifest.iterrows():
        assert Path(row["path"]).read_bytes() == png(int(row["id"]))
    assert fetched.source.label_version == "official-decimal"
    assert fetched.source.validation == "from the source"
    assert not fetched.warnings


def test_without_accepted_terms_nothing_is_asked_of_the_server(fetch, server, tmp_path):
    with pytest.raises(BoneageError, match="--accept-terms"):
        fetch(accept_terms=False)
    assert not server.asked
    assert not (tmp_path / "rsna").exists()


def test_dropped_connections_are_resumed_within_one_command(fetch, server):
    server.drops = [100, 0, 200, 50]
    assert len(fetch().manifest) == 10
    assert ("Bone+Age+Training+Set.zip", "bytes=100-") in server.asked


def test_a_second_command_goes_on_where_the_first_broke_off(fetch, server, contents):
    size = len(contents["Bone+Age+Training+Set.zip"])
    server.drops = [size, 40] + [0] * 6
    with pytest.raises(BoneageError, match=r"Annotations\.zip: .* run the same command again"):
        fetch()
    server.asked.clear()
    server.drops = []
    assert len(fetch().manifest) == 10
    assert server.asked[0] == ("Bone+Age+Training+Set+Annotations.zip", "bytes=40-")
    assert "Bone+Age+Training+Set.zip" not in [name for name, _ in server.asked]


def test_a_second_run_fetches_nothing(fetch, server):
    first = fetch()
    server.asked.clear()
    second = fetch()
    assert second.unchanged
    assert second.source == first.source
    assert not server.asked


def test_splits_can_be_fetched_one_after_the_other(fetch, server, tmp_path):
    first = fetch(splits=["test"])
    assert set(first.manifest["split"]) == {"test"}
    assert first.source.validation == "none"
    assert [name for name, _ in server.asked] == ["Bone+Age+Test+Set.zip"]
    server.asked.clear()
    both = fetch()
    assert len(both.manifest) == 10
    assert "Bone+Age+Test+Set.zip" not in [name for name, _ in server.asked]
    assert len(both.source.files) == 4


def test_an_image_that_was_lost_is_put_back_without_a_download(fetch, server, tmp_path):
    fetch()
    server.asked.clear()
    (tmp_path / "rsna" / "train" / "1377.png").unlink()
    fetch()
    assert (tmp_path / "rsna" / "train" / "1377.png").exists()
    assert not server.asked


def test_archives_stay_unless_told_otherwise(fetch, tmp_path):
    fetch(splits=["test"])
    assert (tmp_path / "rsna" / "archives" / "Bone+Age+Test+Set.zip").exists()
    fetch(splits=["train"], keep_archives=False)
    assert [file.name for file in (tmp_path / "rsna" / "archives").iterdir()] == [
        "Bone+Age+Test+Set.zip"
    ]


def test_what_fits_nothing_is_listed_of_all_splits(fetch, contents, png, tmp_path):
    contents["Bone+Age+Training+Set+Annotations.zip"] = zipped(
        {"train.csv": "id,boneage,male\n1377,180,False\n1378,12,False\n1379,94,False\n"}
    )
    contents["Bone+Age+Test+Set.zip"] = zipped(
        {
            "Bone Age Test Set/test.csv": "id,boneage,male\n4360,168,True\n9999,12,True\n",
            "Bone Age Test Set/Test Set Images/4360.png": png(4360),
        }
    )
    fetch(archives=listed(contents))
    table = pd.read_csv(tmp_path / "rsna" / "unmatched.csv")
    assert sorted(zip(table["id"], table["problem"], strict=True)) == [
        (1380, "image without a bone age"),
        (9999, "label without an image"),
    ]


def test_an_archive_with_another_digest_is_refused(fetch, server, contents):
    server.files = contents | {"Bone+Age+Validation+Set.zip": b"something else"}
    with pytest.raises(BoneageError, match=r"Validation\+Set\.zip\.part: SHA-256"):
        fetch(splits=["validation"])


def test_the_record_names_every_archive_and_its_digest(fetch, server, contents, tmp_path):
    fetch()
    source = read_source(tmp_path / "rsna")
    assert source is not None
    assert {file["url"]: file["sha256"] for file in source.files} == {
        server.url + name: hashlib.sha256(content).hexdigest() for name, content in contents.items()
    }
    assert "no redistribution" in source.terms
    assert "Radiology 2019;290:498" in source.citation


def test_a_disk_without_room_is_told_before_anything_is_fetched(fetch, server, archives, tmp_path):
    huge = [replace(archive, bytes=10**17) for archive in archives]
    with pytest.raises(BoneageError, match=r"needs 800,000,000 GB of disk.*--to.*--split"):
        fetch(archives=huge)
    with pytest.raises(BoneageError, match=r"needs 500,000,000 GB"):
        fetch(archives=huge, keep_archives=False)
    assert not server.asked
    assert not (tmp_path / "rsna").exists()


def test_another_data_set_in_the_folder_is_not_overwritten(fetch, png, tmp_path):
    (tmp_path / "rsna").mkdir()
    (tmp_path / "rsna" / "train.csv").write_text("mine")
    with pytest.raises(BoneageError, match="choose another folder with --to"):
        fetch()


def test_the_true_archives_are_listed_with_their_published_digests():
    assert BASE_URL.startswith("https://")
    assert [archive.split for archive in ARCHIVES] == ["train", "train", "validation", "test"]
    assert [archive.sha256 and archive.sha256[:8] for archive in ARCHIVES] == [
        "9eab917f",
        "f6373249",
        "683ea539",
        None,
    ]


def test_a_fetch_that_broke_off_after_a_split_is_not_called_complete(
    fetch, server, contents, tmp_path
):
    archives = [name for name in contents if "Training" in name]
    server.drops = [len(contents[name]) for name in archives] + [0] * 8
    with pytest.raises(BoneageError, match="run the same command again"):
        fetch()
    broken = read_source(tmp_path / "rsna")
    assert set(broken.splits) == {"train"}
    assert not broken.complete
    server.drops = []
    fetch()
    assert read_source(tmp_path / "rsna").complete
