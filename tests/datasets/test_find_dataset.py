import pytest

from boneage_cli.datasets.find_dataset import find_dataset
from boneage_cli.errors import BoneageError


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


def test_a_misspelt_data_set_is_told_the_nearest_name(below_data):
    below_data("rsna")
    with pytest.raises(BoneageError, match=r"--data rsan: .* did you mean rsna\?"):
        find_dataset("rsan")
