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
    assert not read_labels(tmp_path, "test")[1]


def test_a_folder_without_a_table_tells_how_to_get_one(tmp_path):
    with pytest.raises(BoneageError, match=r"no validation\.csv here; .*boneage fetch"):
        read_manifest(tmp_path, "validation")


@pytest.mark.parametrize(
    ("content", "missing"),
    [("id,boneage,male\n1,2,True\n", "path, split"), ("", "id, path, boneage, male, split")],
)
def test_a_table_in_another_dialect_tells_the_way_to_convert_it(tmp_path, content, missing):
    (tmp_path / "train.csv").write_text(content)
    with pytest.raises(
        BoneageError, match=rf"train\.csv: no column {missing}; 'boneage fetch local"
    ):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (b"2,2.png,24,F,train", "male 'F' is neither True nor False"),
        (b"2,2.png,two years,True,train", "boneage 'two years' is no number"),
        (b'2,2.png,"two\nyears",True,train', "is no number"),
        (b"2,2.png,1_2,True,train", "boneage '1_2' is no number"),
        (b"2,,24,True,train", "path is missing"),
        (b",2.png,24,True,train", "id is missing"),
        (b"2", "path is missing"),
        (b"2,2.png,24,True,train,abc", "width 'abc' is no number"),
        (b"2,2.png,24,True,train,-3", "width '-3' is no size in pixels"),
        (b"2,2.png,24,True,train,0", "width '0' is no size in pixels"),
        (b"2,2.png,24,True,train,400,Doe, John", "8 cells under 7 headings; put cells that hold"),
    ],
)
@pytest.mark.parametrize(
    "before", [b"", b"1,1.png,24,True,train,400,Roe\n"], ids=["first", "later"]
)
def test_a_row_that_cannot_be_read_is_told_in_one_line(tmp_path, before, row, reason):
    header = b"id,path,boneage,male,split,width,patient\n"
    (tmp_path / "train.csv").write_bytes(header + before + row + b"\n")
    with pytest.raises(BoneageError, match=r"train\.csv, line \d: ") as told:
        read_manifest(tmp_path)
    assert reason in str(told.value)
    assert "\n" not in str(told.value)


def test_a_row_that_ends_early_has_no_value_in_its_last_columns(tmp_path):
    (tmp_path / "train.csv").write_text(
        "id,path,boneage,male,split,patient\n1,1.png,24,True,train\n2,2.png\n"
    )
    read = read_manifest(tmp_path)
    assert list(read["id"]) == ["1", "2"]
    assert list(read["split"]) == ["train", "train"]
    assert read["boneage"].isna().tolist() == read["male"].isna().tolist() == [False, True]
    assert read["patient"].isna().all()


def test_a_column_given_twice_is_refused_as_one_of_them_would_be_lost(tmp_path):
    (tmp_path / "train.csv").write_text("id,path,boneage,male,split,boneage\n1,1.png,2,1,train,3\n")
    with pytest.raises(BoneageError, match=r"train\.csv: two columns 'boneage'; delete one"):
        read_manifest(tmp_path)


def test_a_size_that_no_image_has_tells_no_proportions():
    nothing = float("nan")
    sizes = {"width": [-400, 400, 0, 400, nothing, 400], "height": [600, -600, 600, 0, 600, 600]}
    assert true_aspects(pd.DataFrame(sizes)) == [None] * 5 + [pytest.approx(2 / 3)]
