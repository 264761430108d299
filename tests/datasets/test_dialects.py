import io

import openpyxl
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boneage_cli.datasets.dialects import read_table
from boneage_cli.errors import BoneageError, BoneageWarning

DIALECTS = {
    "RSNA and Kaggle": "id,boneage,male\n1377,180,False\n1386,30,True\n",
    "validation set": "Image ID,male,Bone Age (months)\n1377,FALSE,180\n1386,TRUE,30\n",
    "test set": "Case ID,Sex,Ground truth bone age (months)\n1377,F,180\n1386,M,30\n",
    "re-export": "ID,Boneage,Male\n1377,180.0,0\n1386,30.0,1\n",
    "S2": "id,filename,boneage,gender\n1377,1377.png,180,female\n1386,1386.png,30,male\n",
    "Deeplasia": "image_ID,dir,patient_ID,sex,bone_age\n1377.png,a,9,F,180\n1386.png,a,8,M,30\n",
    "data frame with index": ",id,boneage,male\n0,1377,180,False\n1,1386,30,True\n",
    "spreadsheet in Europe": "id;boneage;male\n1377;180,0;False\n1386;30,0;True\n",
    "spreadsheet that names its delimiter": "sep=;\nid;bone age (months);male\n"
    "1377;180;False\n1386;30;True\n",
    "tabs": "id\tboneage\tmale\n1377\t180\tFalse\n1386\t30\tTrue\n",
    "blanks and empty lines": " id , boneage , male \n\n1377 , 180, False\n1386, 30, True\n,,\n",
    "Windows": "\ufeffid,boneage,male\r\n1377,180,False\r\n1386,30,True\r\n",
    "ids that became decimals": "id,boneage,male\n1377.0,180,False\n1386.0,30,True\n",
    "the other sex": "id,boneage,female\n1377,180,yes\n1386,30,no\n",
    "this package": "id,path,boneage,male,split\n1377,train/1377.png,180,False,train\n"
    "1386,test/1386.png,30,True,test\n",
}


@pytest.mark.parametrize("text", DIALECTS.values(), ids=DIALECTS)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "cp1252"])
def test_every_dialect_becomes_the_same_table(text, encoding):
    table = read_table("labels.csv", text.encode(encoding, errors="ignore"))
    assert list(table["id"]) == list(table["image"]) == ["1377", "1386"]
    assert list(table["boneage"]) == [180.0, 30.0]
    assert list(table["male"]) == [False, True]


def workbook(*rows) -> bytes:
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    stream = io.BytesIO()
    book.save(stream)
    return stream.getvalue()


def test_sheets_of_a_workbook_that_are_not_read_are_named():
    book = openpyxl.Workbook()
    for row in (("id", "boneage", "sex"), (1, 10, "F")):
        book.active.append(row)
    book.active.title = "2023"
    book.create_sheet("2024").append(("id", "boneage", "sex"))
    stream = io.BytesIO()
    book.save(stream)
    with pytest.warns(
        BoneageWarning, match=r"^mine\.xlsx: only its first sheet, 2023, .* not 2024"
    ):
        assert len(read_table("mine.xlsx", stream.getvalue())) == 1


def test_an_xlsx_reads_like_a_csv():
    content = workbook(
        (),
        ("Case ID", "Sex", "Ground truth bone age (months)"),
        (4360, "M", 50.25),
        (4460, "F", 60),
    )
    table = read_table("ground truth.xlsx", content)
    assert table.to_dict("list") == {
        "id": ["4360", "4460"],
        "image": ["4360", "4460"],
        "boneage": [50.25, 60.0],
        "male": [True, False],
    }


@pytest.mark.parametrize("content", [b"", b"no zip", workbook((1, 2))[:-40]])
def test_a_damaged_xlsx_is_named_and_refused(content):
    with pytest.raises(BoneageError, match=r"ground truth\.xlsx: not a readable xlsx"):
        read_table("ground truth.xlsx", content)


def test_patients_sizes_splits_and_file_names_are_kept():
    text = (
        "id,filename,patient_ID,split,width,height,boneage,sex\n"
        "1,scans/a-1.dcm,p7,val,1514,2044,100,M\n"
        "2,scans/a-2.dcm,,Training,1514,2044,,\n"
    )
    table = read_table("labels.csv", text.encode())
    assert list(table["image"]) == ["a-1", "a-2"]
    assert list(table["patient"].fillna("none")) == ["p7", "none"]
    assert list(table["split"]) == ["validation", "train"]
    assert list(table["height"]) == [2044, 2044]
    assert table["boneage"].isna().tolist() == table["male"].isna().tolist() == [False, True]


def test_a_table_of_sizes_needs_no_labels():
    table = read_table("native-size.csv", b"id,width,height\n1377,1514,2044\n")
    assert table.to_dict("records") == [
        {"id": "1377", "image": "1377", "width": 1514.0, "height": 2044.0}
    ]


@pytest.mark.parametrize("width", ["0", "-3", "inf"])
def test_a_size_that_no_image_has_is_refused(width):
    with pytest.raises(BoneageError, match=rf"line 2, 'width': '{width}' is no size in pixels"):
        read_table("native-size.csv", f"id,width,height\n1377,{width},2044\n".encode())


@pytest.mark.parametrize("header", ["id,age,sexe", "boneage,male", "id", "", "id,width"])
def test_unknown_headings_are_told_beside_the_wanted_ones(header):
    with pytest.raises(BoneageError) as caught:
        read_table("mine.csv", f"{header}\n1,2,3\n".encode() if header else b"")
    message = str(caught.value)
    assert message.startswith("mine.csv")
    assert "'Bone Age (months)'" in message
    assert all(repr(heading) in message for heading in header.split(",") if heading)
    assert "\n" not in message


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("7,ten,M", "line 3, 'boneage': 'ten' is not a number"),
        ("7,10,X", "line 3, 'sex': sex 'X' is not understood"),
        # 1 is a boy by ISO 5218 and a girl in many questionnaires.
        ("7,10,1", "line 3, 'sex': '1' could be either sex; write M and F"),
        ('7,"1,200",M', "line 3, 'boneage': '1,200' is not clear; write it without separators"),
        ("7,1_2,M", "line 3, 'boneage': '1_2' is not clear"),
        (",10,M", "line 3: no id"),
        ("../..,10,M", "cannot name a radiograph"),
        ("7,10,M,extra", "line 3: 4 cells under 3 headings"),
    ],
)
def test_a_cell_that_cannot_be_read_is_named_by_file_and_line(row, says):
    with pytest.raises(BoneageError, match=r"^mine\.csv, line 3") as caught:
        read_table("mine.csv", f"id,boneage,sex\n1,10,F\n{row}\n".encode())
    assert says in str(caught.value)


def test_a_letter_under_female_is_the_sex_unless_it_could_mean_false():
    table = read_table("mine.csv", b"id,boneage,female\n1,10,Female\n2,20,M\n3,30,yes\n4,40,0\n")
    assert list(table["male"]) == [False, True, False, True]
    with pytest.raises(BoneageError, match="'F' could be female or false; name the column sex"):
        read_table("mine.csv", b"id,boneage,female\n1,10,F\n")


def test_two_columns_of_one_meaning_must_agree():
    agree = b"id,boneage,male,gender\n1,10,True,M\n2,20,,F\n"
    assert list(read_table("mine.csv", agree)["male"]) == [True, False]
    with pytest.raises(BoneageError, match="'gender' contradicts another column"):
        read_table("mine.csv", b"id,boneage,male,gender\n1,10,True,F\n")


def refusal(name: str, content: bytes) -> str | None:
    try:
        read_table(name, content)
    except BoneageError as error:
        return str(error)
    return None


@given(st.lists(st.tuples(st.integers(0, 10**4), st.integers(0, 255)), min_size=1, max_size=5))
@settings(deadline=None, max_examples=60)
def test_a_damaged_xlsx_is_read_or_refused_and_never_a_crash(damage):
    content = bytearray(workbook(("id", "sex"), (1, "M")))
    for position, value in damage:
        content[position % len(content)] = value
    message = refusal("x.xlsx", bytes(content))
    assert message is None or (message.startswith("x.xlsx") and "\n" not in message)


SEXES = {
    True: ["True", "TRUE", "true", "M", "m", "male", "Male", "1"],
    False: ["False", "FALSE", "false", "F", "f", "female", "Female", "0"],
    None: ["", "NaN", "unknown"],
}
COLUMNS = {
    "id": ["id", "ID", "Image ID", "Case ID", "image_ID", "image-id"],
    "boneage": ["boneage", "Bone Age (months)", "bone_age", "Ground truth bone age (months)"],
    "male": ["male", "Male"],
    "sex": ["Sex", "sex", "gender", "Gender"],
}


@st.composite
def written_tables(draw):
    """Draws rows and one of the many ways to write them as a table."""
    rows = draw(
        st.lists(
            st.tuples(
                st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,8}", fullmatch=True),
                st.one_of(st.none(), st.floats(0, 240).map(lambda months: round(months, 2))),
                st.sampled_from([True, False, None]),
            ),
            min_size=1,
            max_size=8,
        )
    )
    delimiter = draw(st.sampled_from([",", ";", "\t"]))
    order = draw(st.permutations(["id", "boneage", draw(st.sampled_from(["male", "sex"]))]))
    extension = draw(st.sampled_from(["", ".png", ".dcm", ".JPG"]))
    header = [draw(st.sampled_from(COLUMNS[column])) for column in order]
    lines = [delimiter.join(header)]
    for name, months, male in rows:
        number = "" if months is None else f"{months:g}"
        if delimiter == ";" and draw(st.booleans()):
            number = number.replace(".", ",")
        cells = {
            "id": name + extension,
            "boneage": number,
            "male": draw(st.sampled_from(SEXES[male])),
            "sex": draw(st.sampled_from([word for word in SEXES[male] if word not in ("0", "1")])),
        }
        lines.append(delimiter.join(cells[column] for column in order))
    end = draw(st.sampled_from(["\n", "\r\n"]))
    return rows, (end.join(lines) + end).encode(draw(st.sampled_from(["utf-8", "utf-8-sig"])))


@given(written_tables())
@settings(deadline=None, max_examples=150)
def test_what_was_written_in_any_dialect_is_read_back(written):
    rows, content = written
    table = read_table("labels.csv", content)
    assert list(table["id"]) == [name for name, _, _ in rows]
    for (_, months, male), (_, read) in zip(rows, table.iterrows(), strict=True):
        assert read["boneage"] == pytest.approx(months) if months is not None else True
        assert (months is None) == (read["boneage"] != read["boneage"])
        assert (None if pd.isna(read["male"]) else bool(read["male"])) == male


@given(st.binary(max_size=300), st.sampled_from(["x.csv", "x.xlsx"]))
@settings(deadline=None, max_examples=200)
def test_any_bytes_are_read_or_refused_in_one_line(content, name):
    message = refusal(name, content)
    assert message is None or (message.startswith(name) and "\n" not in message)
