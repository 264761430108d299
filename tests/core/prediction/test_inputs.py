from __future__ import annotations

import csv
import io
import os
import tracemalloc
import warnings
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boneage_cli.core.prediction.inputs import cases, count_cases, may_state_sex
from boneage_cli.errors import BoneageError, BoneageWarning


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """The current folder, with scans/a.png, scans/b.PNG, scans/old/c.jpg and scans/notes.txt."""
    (tmp_path / "scans" / "old").mkdir(parents=True)
    for name in ("a.png", "b.PNG", "old/c.jpg"):
        (tmp_path / "scans" / name).write_bytes(b"\x89PNG\0")
    (tmp_path / "scans" / "notes.txt").write_text("not an image")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def paths(*inputs: str) -> list[str]:
    return [case.path for case in cases(inputs)]


def test_a_folder_gives_its_radiographs_to_the_bottom_in_order_of_name(folder):
    assert paths("scans") == ["scans/a.png", "scans/b.PNG", "scans/old/c.jpg"]
    assert count_cases(["scans"]) == 3


def test_hidden_files_of_a_folder_are_left_out(folder):
    (folder / "scans" / "._a.png").write_bytes(b"\0")
    assert "scans/._a.png" not in paths("scans")


def test_dicom_files_without_a_suffix_are_found_by_their_mark(folder):
    for name, mark in (
        ("IM0001", b"DICM"),
        ("1.2.840.113619.7", b"DICM"),
        ("IM0002", b"text"),
        ("DICOMDIR", b"DICM"),
    ):
        (folder / "scans" / name).write_bytes(bytes(128) + mark + bytes(4))
    with pytest.warns(BoneageWarning, match="scans: left out scans/IM0002, not DICOM"):
        found = paths("scans")
    assert {"scans/IM0001", "scans/1.2.840.113619.7"} <= set(found)
    assert not {"scans/IM0002", "scans/DICOMDIR"} & set(found)
    assert paths("scans/IM0001") == ["scans/IM0001"]


def test_a_link_to_a_parent_folder_does_not_go_round_in_circles(folder):
    (folder / "scans" / "loop").symlink_to(folder / "scans", target_is_directory=True)
    assert paths("scans") == ["scans/a.png", "scans/b.PNG", "scans/old/c.jpg"]


def test_a_linked_folder_is_searched(folder, tmp_path):
    (folder / "link").mkdir()
    (folder / "link" / "elsewhere").symlink_to(folder / "scans", target_is_directory=True)
    assert paths("link")[0] == "link/elsewhere/a.png"


def test_a_text_list_leaves_out_blank_lines_and_comments(folder):
    Path("list.txt").write_text("# girls\nscans/a.png\r\n\n  scans/b.PNG  \n#scans/old/c.jpg\n")
    assert paths("list.txt") == ["scans/a.png", "scans/b.PNG"]
    assert count_cases(["list.txt", "scans"]) == 5


def test_a_list_may_begin_with_a_byte_order_mark_and_have_any_suffix(folder):
    Path("list").write_text("\ufeffscans/a.png\n", encoding="utf-8")
    assert paths("list") == ["scans/a.png"]


def test_paths_of_a_list_are_looked_for_here_first_and_then_beside_the_list(folder):
    Path("scans/list.txt").write_text("a.png\nscans/b.PNG\ngone.png\n")
    assert paths("scans/list.txt") == ["scans/a.png", "scans/b.PNG", "gone.png"]


def test_a_file_name_that_is_no_utf8_survives(folder):
    name = os.fsdecode(b"caf\xe9.png")
    Path(name).write_bytes(b"\0")
    Path("list.txt").write_bytes(b"caf\xe9.png\n")
    assert paths("list.txt") == [name]


def test_standard_input_is_a_list(folder, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"scans/a.png\n\n# x\n")))
    assert count_cases(["-"]) is None
    assert paths("-") == ["scans/a.png"]


def test_inputs_keep_their_order_and_their_sex(folder):
    Path("list.txt").write_text("scans/b.PNG\n")
    found = list(cases(["list.txt", "scans/a.png"], male=False))
    assert [(case.path, case.male) for case in found] == [
        ("scans/b.PNG", False),
        ("scans/a.png", False),
    ]


@pytest.mark.parametrize(
    "table",
    [
        "path,sex\nscans/a.png,M\nscans/old/c.jpg,F\n",
        "Filename;Gender\nscans/a.png;male\nscans/old/c.jpg;female\n",
        "file\tmale\nscans/a.png\tTRUE\nscans/old/c.jpg\tFALSE\n",
        "id,image,boneage,male\n7,scans/a.png,12,True\n8,scans/old/c.jpg,13,False\n",
        "image_ID,dir,patient_ID,sex,bone_age\na.png,scans,1,M,12\nc,scans/old,1,F,13\n",
        "ID,Boneage,Male\nscans/a,12,True\nscans/old/c,13,False\n",
        '"Image ID",male,"Bone Age (months)"\nscans/a,TRUE,12\nscans/old/c,FALSE,13\n',
        "Case ID,Sex\nscans/a,M\nscans/old/c,F\n",
        "path,female\nscans/a.png,0\nscans/old/c.jpg,1\n",
    ],
)
def test_a_table_in_any_dialect_names_radiographs_and_sexes(folder, table):
    Path("children.csv").write_text(table)
    found = [(case.path, case.male) for case in cases(["children.csv"])]
    assert found == [("scans/a.png", True), ("scans/old/c.jpg", False)]
    assert count_cases(["children.csv"]) == 2


def test_a_table_of_ids_finds_files_beside_it_and_in_the_folder_of_its_name(folder):
    Path("scans.csv").write_text("id\na\n")
    Path("scans/old.csv").write_text("id\na\nc\n")
    assert paths("scans.csv") == ["scans/a.png"]
    assert paths("scans/old.csv") == ["scans/a.png", "scans/old/c.jpg"]


def test_a_table_of_ids_finds_files_whose_suffix_is_in_capitals(folder):
    Path("scans.csv").write_text("id\na\nb\n")
    assert paths("scans.csv") == ["scans/a.png", "scans/b.PNG"]


def test_a_row_that_names_a_sex_wins_over_the_option_and_others_take_the_option(folder):
    Path("children.csv").write_text("id,path,sex\n1,scans/a.png,M\n2,b.png,\n3,c.png,unknown\n")
    found = list(cases(["children.csv"], male=False))
    assert [case.male for case in found] == [True, False, False]
    assert [case.id for case in found] == ["1", "2", "3"]


def test_the_size_of_the_original_gives_the_true_aspect(folder):
    Path("children.csv").write_text("path,width,height\nscans/a.png,1500,2000\nb.png,,\n")
    assert [case.aspect for case in cases(["children.csv"])] == [0.75, None]


def test_ages_of_a_table_come_before_the_one_for_all(folder):
    Path("months.csv").write_text("path,age_months\nscans/a.png,122\nb.png,\n")
    Path("years.csv").write_text("path,Age (years)\nscans/a.png,10.5\n")
    assert [case.age for case in cases(["months.csv"], age=60)] == [122, 60]
    assert [case.age for case in cases(["years.csv", "a.png"], age=60)] == [126, 60]
    assert [case.age for case in cases(["months.csv"])] == [122, None]


def test_the_bone_age_of_a_table_is_known(folder):
    Path("known.csv").write_text("path,boneage\nscans/a.png,126.5\nb.png,\n")
    assert [case.known for case in cases(["known.csv"])] == [126.5, None]
    # A list of hands still to be read; prediction needs no reading.
    Path("known.csv").write_text("path,boneage\nscans/a.png,pending\n")
    assert [(case.known, case.error) for case in cases(["known.csv"])] == [(None, None)]


def test_a_manifest_of_a_data_set_is_a_table(folder):
    Path("scans/test.csv").write_text(
        "id,path,boneage,male,split,width,height\n1,old/c.jpg,100.0,False,test,10,20\n"
    )
    (case,) = cases(["scans/test.csv"])
    assert (case.path, case.male, case.aspect, case.id) == ("scans/old/c.jpg", False, 0.5, "1")


def test_ids_that_a_spreadsheet_made_decimals_find_their_files(folder):
    Path("scans/1377.png").write_bytes(b"\x89PNG\0")
    Path("scans.csv").write_text("id\n1377.0\n")
    assert [(case.path, case.id) for case in cases(["scans.csv"])] == [("scans/1377.png", "1377")]


def test_blank_lines_above_a_table_are_passed_over(folder):
    Path("children.csv").write_text("\n \npath,sex\nscans/a.png,M\n")
    assert paths("children.csv") == ["scans/a.png"]
    Path("children.csv").write_text("\n\npath,sex\nscans/a.png,X\n")
    (case,) = cases(["children.csv"])
    assert "line 4" in str(case.error)


def test_a_pipe_is_sent_to_standard_input_instead(folder):
    os.mkfifo("pipe")
    with pytest.raises(BoneageError, match=r"pipe: a pipe .* 'boneage predict -'"):
        cases(["pipe"])


def test_a_workbook_is_not_taken_for_an_image(folder):
    Path("labels.xlsx").write_bytes(b"PK\3\4\0")
    with pytest.raises(BoneageError, match=r"labels.xlsx: a workbook; save its sheet as CSV"):
        cases(["labels.xlsx"])


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("age,sex\n1,M\n", "must name a column path"),
        ("", "must name a column path"),
        ("path,sex\n", "no paths in it"),
        ('path,name\na.png,x\nb.png,"x\nc.png,y\n', "line 3: no row .* fix its quotation marks"),
        ('path,name\na.png,"x\nb.png,y"z\n', "line 2: no row of a CSV table"),
        ('path,sex\n"a.png\n' + "x" * 200_000, "line 2: no row of a CSV table"),
    ],
)
def test_a_table_that_makes_no_sense_is_refused(folder, table, message):
    Path("children.csv").write_text(table)
    with pytest.raises(BoneageError, match=message) as refusal:
        paths("children.csv")
    assert "children.csv" in str(refusal.value)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("scans/old/c.jpg,X,,,", "'X'"),
        (",F,,,", "neither a path nor an id"),
        ("scans/old/c.jpg,M,,0,10", "'0' is no size in pixels"),
        ("scans/old/c.jpg,M,,wide,10", "'wide'"),
        ("scans/old/c.jpg,M,ten,,", "age_years 'ten' is not an age"),
        ("scans/old/c.jpg,M,-3,,", "age_years '-3' is not an age"),
        ("scans/old/c.jpg,M,999,,", "age_years '999' is not an age"),
        (
            "scans/old/c.jpg,M,11,5,10,20",
            "6 cells under 5 headings; put cells that hold a comma in",
        ),
    ],
)
def test_a_row_that_makes_no_sense_fails_with_its_line_and_the_others_do_not(folder, row, message):
    Path("children.csv").write_text(
        f"path,sex,age_years,width,height\nscans/a.png,M,,,\n{row}\nscans/b.PNG,F,9,,\n"
    )
    first, wrong, last = cases(["children.csv"])
    assert wrong.error is not None
    assert wrong.error.startswith("children.csv, line 3: ")
    assert message in wrong.error
    assert wrong.path in ("scans/old/c.jpg", "children.csv, line 3")
    assert (first.path, first.male, first.error) == ("scans/a.png", True, None)
    assert (last.path, last.male, last.age, last.error) == ("scans/b.PNG", False, 108, None)


@pytest.mark.parametrize("columns", ["sex,male", "male,female", "sex,gender"])
def test_columns_that_contradict_each_other_on_the_sex_are_told_of(folder, columns):
    agreeing = "M,False" if "female" in columns else "M,M"
    contradicting = "F,False" if "female" in columns else "F,M"
    Path("children.csv").write_text(
        f"path,{columns}\nscans/a.png,{agreeing}\nscans/b.PNG,{contradicting}\n"
    )
    first, second = cases(["children.csv"])
    assert (first.male, first.error) == (True, None)
    assert "contradict each other on the sex" in str(second.error)


def test_rows_without_a_cell_are_passed_over(folder):
    Path("children.csv").write_text("path,sex\nscans/a.png,M\n,,,\n ,\n\n")
    assert paths("children.csv") == ["scans/a.png"]
    assert count_cases(["children.csv"]) == 1


def test_a_table_as_a_german_spreadsheet_writes_it_is_read(folder):
    Path("kinder.csv").write_text("sep=;\npath;sex;age_years\nscans/a.png;M;11,5\n")
    (case,) = cases(["kinder.csv"])
    assert (case.path, case.male, case.age) == ("scans/a.png", True, 138)


@pytest.mark.parametrize("encoding", ["utf-16", "cp1252"])
def test_lists_and_tables_in_the_encodings_of_windows_are_read(folder, encoding):
    Path("scans/Müller.png").write_bytes(b"\x89PNG\0")
    Path("list.txt").write_bytes("scans/Müller.png\r\n".encode(encoding))
    Path("table.csv").write_bytes("path;sex\r\nscans/Müller.png;F\r\n".encode(encoding))
    assert paths("list.txt") == ["scans/Müller.png"]
    assert [(case.path, case.male) for case in cases(["table.csv"])] == [
        ("scans/Müller.png", False)
    ]


def test_a_column_that_could_be_months_or_years_is_told_of(folder):
    Path("children.csv").write_text("path,age\nscans/a.png,11\n")
    with pytest.warns(BoneageWarning, match="column age is ignored.* rename it age_months or"):
        (case,) = cases(["children.csv"])
    assert case.age is None


def test_one_file_of_a_folder_that_cannot_be_opened_does_not_keep_the_others(folder):
    (folder / "scans" / "IM0009").symlink_to("/nowhere")
    os.mkfifo(folder / "scans" / "pipe")
    assert paths("scans") == ["scans/IM0009", "scans/a.png", "scans/b.PNG", "scans/old/c.jpg"]


def test_files_that_are_named_like_dicom_but_are_none_are_told_of(folder):
    (folder / "scans" / "IM0001").write_bytes(b"")
    (folder / "scans" / "1.2.840.1").write_bytes(bytes(500))
    (folder / "scans" / "DICOMDIR").write_bytes(b"")
    (folder / "scans" / "README").write_text("From the archive")
    (folder / "scans" / "list.txt").write_text("a.png")
    with pytest.warns(BoneageWarning, match=r"left out scans/1.2.840.1 and 1 more, not DICOM"):
        assert paths("scans") == ["scans/a.png", "scans/b.PNG", "scans/old/c.jpg"]


def test_dicom_files_of_any_suffix_are_found_and_other_pictures_told_of(folder):
    (folder / "scans" / "hand.ct").write_bytes(bytes(128) + b"DICM" + bytes(4))
    (folder / "scans" / "x.bmp").write_bytes(b"BM")
    with pytest.warns(BoneageWarning, match=r"scans: left out scans/x.bmp, of a kind that"):
        assert "scans/hand.ct" in paths("scans")
    # No second warning.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert may_state_sex(["scans"])
        assert count_cases(["scans"]) == 4


@pytest.mark.parametrize("name", ["gone", "gone.csv", "gone.txt"])
def test_an_input_that_does_not_exist_is_refused_before_anything_is_read(folder, name):
    with pytest.raises(BoneageError, match=f"{name}: no such file or folder"):
        cases(["scans/a.png", name])


@pytest.mark.parametrize(
    ("name", "content", "first"),
    [
        ("list.txt", "# exported\n\nnas/a.png\nnas/b.png\n", "nas/a.png"),
        ("README.md", f"# The archive\n\n{'x' * 5000} hand radiographs, since 2010.\n", "x" * 200),
        ("children.csv", "path,sex\nscans/c.png,X\nnas/a.png,M\nnas/b.png,F\n", "nas/a.png"),
        ("nas.csv", "id,sex\n4360,M\n4361,F\n", "4360"),
    ],
)
def test_a_list_or_table_of_which_no_path_exists_is_refused_at_once(folder, name, content, first):
    Path(name).write_text(content)
    with pytest.raises(BoneageError) as refusal:
        cases(["scans", name])
    assert str(refusal.value).startswith(
        f"{name}: none of its paths exists (the first is {first}); mount the archive"
    )


@pytest.mark.parametrize("last", ["scans/a.png", "scans"])
def test_a_list_of_which_one_path_exists_gives_each(folder, last):
    Path("list.txt").write_text(f"nas/a.png\nnas/b.png\n{last}\n")
    Path("list.csv").write_text(f"path\nnas/a.png\nnas/b.png\n{last}\n")
    assert paths("list.txt") == paths("list.csv") == ["nas/a.png", "nas/b.png", last]


def test_a_table_whose_rows_are_all_invalid_gives_each_with_its_line(folder):
    Path("list.csv").write_text("path,sex\nnas/a.png,X\n,M\n")
    assert ["line 2" in str(case.error) for case in cases(["list.csv"])] == [True, False]


def test_names_on_standard_input_need_not_exist(folder, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"nas/a.png\nnas/b.png\n")))
    assert paths("-") == ["nas/a.png", "nas/b.png"]


def test_a_missing_radiograph_is_a_case_that_fails_by_itself(folder):
    assert paths("scans/a.png", "gone.png") == ["scans/a.png", "gone.png"]


def test_a_bare_sex_is_refused_with_the_option_that_takes_it(folder):
    with pytest.raises(BoneageError, match="--sex M"):
        cases(["scans", "M"])


@pytest.mark.parametrize("name", ["empty", "empty.txt"])
def test_an_empty_input_is_refused(folder, name):
    if name == "empty":
        Path(name).mkdir()
    else:
        Path(name).write_text("# nothing\n\n")
    with pytest.raises(BoneageError, match=f"{name}: no (radiographs|paths) in it"):
        paths(name)


@pytest.mark.parametrize(
    ("name", "content", "answer"),
    [
        ("list.txt", "scans/a.png\n", False),
        ("list.txt", "scans/a.png\nscans/x.dcm\n", True),
        ("list.txt", "scans/a.png\nscans/1.2.840.5\n", True),
        ("list.csv", "path\nscans/a.png\n", False),
        ("list.csv", "path,sex\nscans/a.png,M\n", True),
        ("list.csv", "path\nscans/x.dcm\n", True),
    ],
)
def test_it_is_known_beforehand_whether_an_input_could_name_a_sex(folder, name, content, answer):
    Path(name).write_text(content)
    assert may_state_sex([name]) is answer
    assert may_state_sex(["scans", name]) is answer


def test_standard_input_could_name_a_sex(folder):
    assert may_state_sex(["-"])


def test_a_long_list_takes_no_more_memory_than_a_short_one(folder):
    def peak(lines: int) -> int:
        with Path("list.txt").open("w") as file:
            file.writelines(f"scans/{line}.png\n" for line in range(1, lines))
            file.write("scans/a.png\n")
        tracemalloc.start()
        try:
            assert sum(1 for _ in cases(["list.txt"])) == lines
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(20_000) < peak(500) + 100_000


line_text = st.text(
    st.characters(exclude_characters="\n\r\0", exclude_categories=["Cs"]), max_size=30
)


@settings(deadline=None, max_examples=50)
@given(st.lists(line_text, max_size=8))
def test_every_line_of_a_list_that_is_no_comment_is_one_radiograph(tmp_path_factory, lines):
    file = tmp_path_factory.mktemp("lists") / "list.txt"
    # The list names itself, so that one of its paths exists.
    lines = [*lines, file.name]
    file.write_text("\n".join(lines), encoding="utf-8")
    # A U+FEFF at the beginning is a byte order mark, not text.
    expected = [line.strip() for line in "\n".join(lines).removeprefix("\ufeff").split("\n")]
    expected = [line for line in expected if line and not line.startswith("#")]
    assert [name.rsplit("/", 1)[-1] for name in paths(str(file))] == [
        name.rsplit("/", 1)[-1] for name in expected
    ]


cell = st.text(st.characters(exclude_characters="\0/", exclude_categories=["Cs"]), max_size=12)
sexes = st.sampled_from([("M", True), ("f", False), ("TRUE", True), ("female", False), ("", None)])


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.tuples(cell.filter(str.strip), sexes), min_size=1, max_size=6),
    st.sampled_from(",;\t"),
)
def test_a_table_with_any_names_quoted_by_the_csv_rules_is_read(tmp_path_factory, rows, delimiter):
    file = tmp_path_factory.mktemp("tables") / "list.csv"
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, delimiter=delimiter)
        writer.writerow(["path", "sex"])
        writer.writerows((f"{name}.png", word) for name, (word, _) in rows)
        # The table names itself, so that one of its paths exists.
        writer.writerow([file.name, "M"])
    *found, _ = cases([str(file)])
    assert [case.male for case in found] == [male for _, (_, male) in rows]
    assert [case.path for case in found] == [f"{name}.png".strip() for name, _ in rows]


def test_an_empty_folder_is_not_told_to_lack_the_sex(folder):
    (folder / "empty").mkdir()
    assert may_state_sex(["empty"])
    assert not may_state_sex(["scans"])


def test_an_empty_folder_fails_by_itself_among_others(folder):
    (folder / "nobody").mkdir()
    found = list(cases(["nobody", "a.png"]))
    assert [case.path for case in found] == ["nobody", "a.png"]
    assert "no radiographs in it" in found[0].error
    assert found[1].error is None


@pytest.mark.parametrize("entry", ['"scans/a b.png"', "scans\\a b.png", '"scans\\a b.png"'])
def test_paths_as_windows_writes_them_are_found(folder, entry):
    (folder / "scans" / "a b.png").write_bytes(b"")
    Path("list.txt").write_text(f"{entry}\n")
    assert paths("list.txt") == ["scans/a b.png"]


def test_ages_in_two_columns_may_not_contradict_each_other(folder):
    Path("t.csv").write_text("path,age_years,age_months\nscans/a.png,9,112\nb.png,9,9\nc.png,,9\n")
    first, second, third = cases(["t.csv"])
    assert (first.age, first.error) == (112, None)
    assert "line 3: two columns contradict each other on the age" in second.error
    assert third.age == 9


def test_an_image_on_standard_input_is_told_in_one_line(folder, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\x89PNG\0\0\n\0\n")))
    with pytest.raises(BoneageError, match=r"but an image .* or separated by nulls"):
        list(cases(["-"]))
