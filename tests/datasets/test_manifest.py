import pandas as pd
import pytest

from boneage_cli.datasets.manifest import (
    find_dataset,
    label_version,
    read_manifest,
    write_manifest,
)
from boneage_cli.errors import BoneageError


def rows(**columns) -> pd.DataFrame:
    known = {
        "id": ["007", "8"],
        "path": ["train/007.png", "test/8.png"],
        "boneage": [120.0, None],
        "male": pd.array([True, None], dtype="boolean"),
        "split": ["train", "test"],
    }
    return pd.DataFrame(known | columns)


def test_what_is_written_is_read_back(tmp_path):
    write_manifest(rows(patient=["01", "02"], width=[1514, 1600]), tmp_path)
    read = read_manifest(tmp_path)
    assert list(read["id"]) == ["007", "8"]
    assert list(read["path"]) == [str(tmp_path / "train/007.png"), str(tmp_path / "test/8.png")]
    assert read["boneage"].isna().tolist() == read["male"].isna().tolist() == [False, True]
    assert list(read["patient"]) == ["01", "02"]
    assert list(read["width"]) == [1514, 1600]
    assert list(read_manifest(tmp_path, "test")["id"]) == ["8"]


def test_a_folder_without_a_table_tells_how_to_get_one(tmp_path):
    with pytest.raises(BoneageError, match=r"no validation\.csv here; .*boneage fetch"):
        read_manifest(tmp_path, "validation")


def test_a_table_in_another_dialect_tells_the_way_to_convert_it(tmp_path):
    (tmp_path / "train.csv").write_text("id,boneage,male\n1,2,True\n")
    with pytest.raises(
        BoneageError, match=r"train\.csv: no column path, split; 'boneage fetch local"
    ):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "No columns"),
        (b"id,path,boneage,male,split\n1,1.png,24,F,train\n", "F cannot be cast"),
        (b"id,path,boneage,male,split\n1,1.png,two years,True,train\n", "two years"),
        (b"id,path,boneage,male,split\n1,,24,True,train\n", "a row has no path"),
        ("id,path,boneage,male,split\nJos\u00e9,1.png,24,True,train\n".encode("cp1252"), "utf-8"),
    ],
)
def test_a_table_that_cannot_be_read_is_told_in_one_line(tmp_path, content, reason):
    (tmp_path / "train.csv").write_bytes(content)
    with pytest.raises(BoneageError, match=r"train\.csv: cannot be read .*check-data") as told:
        read_manifest(tmp_path)
    assert reason in str(told.value)
    assert "\n" not in str(told.value)


@pytest.fixture
def below_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def make(*names: str) -> None:
        for name in names:
            folder = tmp_path / "data" / name
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "train.csv").write_text("id\n")

    return make


def found(data=None) -> str:
    return find_dataset(data).as_posix()


def test_the_only_data_set_is_found(below_data, tmp_path):
    below_data("rsna")
    (tmp_path / "data" / "notes").mkdir()
    (tmp_path / "data" / "README.md").write_text("x")
    assert found() == "data/rsna"


def test_the_demo_is_found_alone_and_gives_way_to_another(below_data):
    below_data("demo")
    assert found() == "data/demo"
    below_data("rsna")
    assert found() == "data/rsna"


def test_data_itself_may_be_the_data_set(below_data):
    below_data("", "rsna")
    assert found() == "data"


def test_a_test_split_alone_is_a_data_set(below_data, tmp_path):
    (tmp_path / "data" / "rsna").mkdir(parents=True)
    (tmp_path / "data" / "rsna" / "test.csv").write_text("id\n")
    assert found() == "data/rsna"


def test_several_data_sets_are_listed_to_choose_from(below_data):
    below_data("demo", "rsna", "clinic")
    with pytest.raises(BoneageError, match=r"\(clinic, demo, rsna\); choose one with --data"):
        find_dataset()


def test_a_data_set_can_be_named_by_folder_or_by_name(below_data, tmp_path):
    below_data("demo", "rsna")
    assert found("demo") == "data/demo"
    assert found(tmp_path / "data" / "rsna") == (tmp_path / "data" / "rsna").as_posix()


@pytest.mark.parametrize("data", [None, "clinic", "data"])
def test_a_missing_data_set_tells_how_to_fetch_one(below_data, data):
    with pytest.raises(BoneageError, match="boneage fetch"):
        find_dataset(data)


def labelled(**months) -> pd.DataFrame:
    return pd.DataFrame(
        {"id": [name[1:] for name in months], "boneage": pd.Series(months.values(), dtype=float)}
    )


@pytest.mark.parametrize(
    ("test", "version"),
    [
        (labelled(), "none"),
        (labelled(_4360=None, _4361=None), "none"),
        (labelled(_4360=168.93, _4361=50), "official-decimal"),
        (labelled(_4361=50.5), "official-decimal"),
        (labelled(_4360=164, _4361=50), "integer"),
        (labelled(_4360=164, _4361=50.5), "decimal"),
        (labelled(_1=50.5, _2=60), "decimal"),
        (labelled(_1=50, _2=60), "integer"),
        (labelled(_4360=168.93, _la_dha=60.5), "official-decimal"),
    ],
)
def test_the_version_of_test_labels_is_told_by_their_values(test, version):
    assert label_version(test) == version


def test_a_misspelt_data_set_is_told_the_nearest_name(below_data):
    below_data("rsna")
    with pytest.raises(BoneageError, match=r"--data rsan: .* did you mean rsna\?"):
        find_dataset("rsan")
