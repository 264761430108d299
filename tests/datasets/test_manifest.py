import pandas as pd
import pytest

from boneage_cli.datasets.audit.labels import read_labels
from boneage_cli.datasets.manifest import read_manifest, true_aspects, write_manifest
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


def test_a_radiograph_may_be_called_na(tmp_path):
    names = ["NA", "None", "null"]
    (tmp_path / "train.csv").write_text(
        "id,path,boneage,male,split,patient,width\n"
        + "".join(f"{name},{name}.png,NA,nan,train,{name},\n" for name in names)
    )
    read = read_manifest(tmp_path)
    assert list(read["id"]) == list(read["patient"]) == names
    assert read["boneage"].isna().all()
    assert read["male"].isna().all()
    assert read["width"].isna().all()


def test_cells_may_be_written_by_hand(tmp_path):
    # Blanks after commas, other capitals, a comma at the end of every row.
    (tmp_path / "test.csv").write_text(
        "id, path, boneage, male, split\n1, test/1.png, 24, TrUe, test,\n2, 2.png, na, 0, test,\n"
    )
    read = read_manifest(tmp_path)
    assert list(read["id"]) == ["1", "2"]
    assert list(read["path"]) == [str(tmp_path / "test/1.png"), str(tmp_path / "2.png")]
    assert read["boneage"].tolist()[0] == 24
    assert read["boneage"].isna().tolist() == [False, True]
    assert read["male"].tolist() == [True, False]
    assert {finding.kind for finding in read_labels(tmp_path, "test")[1]} == {"row-length"}


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
        (b"id,path,boneage,male,split\n1,1.png,24,F,train\n", "male 'F' is neither True nor False"),
        (b"id,path,boneage,male,split\n1,1.png,two years,True,train\n", "two years"),
        (b"id,path,boneage,male,split\n1,,24,True,train\n", "a row has no path"),
        (b"id,path,boneage,male,split,width\n1,1.png,24,True,train,abc\n", "width 'abc' is no num"),
    ],
)
def test_a_table_that_cannot_be_read_is_told_in_one_line(tmp_path, content, reason):
    (tmp_path / "train.csv").write_bytes(content)
    with pytest.raises(BoneageError, match=r"train\.csv: cannot be read .*check-data") as told:
        read_manifest(tmp_path)
    assert reason in str(told.value)
    assert "\n" not in str(told.value)


def test_a_size_that_no_image_has_tells_no_proportions():
    nothing = float("nan")
    sizes = {"width": [-400, 400, 0, 400, nothing, 400], "height": [600, -600, 600, 0, 600, 600]}
    assert true_aspects(pd.DataFrame(sizes)) == [None] * 5 + [pytest.approx(2 / 3)]
