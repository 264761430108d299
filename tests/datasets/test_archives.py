import io
import stat
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boneage_cli.datasets.archives import extract_member, open_archive, read_member, safe_parts
from boneage_cli.errors import BoneageError

ARCHIVE = "set.zip"


@given(
    st.lists(
        st.one_of(
            st.sampled_from(["..", ".", "", "C:", "/", "\\", "a", "b.png", "\0"]),
            st.text(max_size=6),
        ),
        max_size=6,
    ),
    st.sampled_from(["/", "\\"]),
)
@settings(deadline=None, max_examples=500)
def test_no_name_in_an_archive_leads_outside_of_the_target(parts, separator):
    folder = Path("/data/set")
    try:
        names = safe_parts(ARCHIVE, separator.join(parts))
    except BoneageError:
        return
    joined = folder.joinpath(*names)
    assert joined.is_relative_to(folder)
    assert ".." not in joined.parts


@pytest.mark.parametrize(
    "name",
    ["../1.png", "a/../../1.png", "/etc/1.png", "..\\1.png", "C:\\1.png", "c:1.png", "\\\\host\\1"],
)
def test_an_archive_that_climbs_out_is_refused_whole(name, tmp_path, write_zip):
    archive = tmp_path / "set.zip"
    write_zip(archive, {"1.png": b"fine", name: b"not"})
    with pytest.raises(BoneageError, match=r"set\.zip: .* leads outside of the archive"):
        open_archive(archive)


def test_folders_and_files_of_an_ordinary_archive_are_read(tmp_path, write_zip):
    archive = tmp_path / "set.zip"
    write_zip(archive, {"a/": b"", "a/1.png": b"one", "a\\2.png": b"two"})
    with open_archive(archive) as opened:
        members = [member for member in opened.infolist() if not member.is_dir()]
        assert [read_member(opened, member) for member in members] == [b"one", b"two"]
        extract_member(opened, members[0], tmp_path / "new" / "1.png")
    assert (tmp_path / "new" / "1.png").read_bytes() == b"one"
    assert safe_parts(ARCHIVE, "a\\2.png") == ("a", "2.png")


def test_a_decompression_bomb_is_refused_before_anything_is_written(tmp_path):
    archive = tmp_path / "bomb.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for number in range(3):
            with packed.open(f"{number}.png", "w") as member:
                for _ in range(100):
                    member.write(bytes(1_000_000))
    with pytest.raises(BoneageError, match=r"bomb\.zip: \d+ kB would unpack to 300 MB"):
        open_archive(archive)


def test_a_member_that_claims_to_be_smaller_than_it_is_is_refused(tmp_path):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("1.png", bytes(100_000))
    content = bytearray(stream.getvalue())
    # The unpacked size is at byte 22 of the local and byte 24 of the central header.
    for position in (22, content.index(b"PK\x01\x02") + 24):
        content[position : position + 4] = (10).to_bytes(4, "little")
    archive = tmp_path / "liar.zip"
    archive.write_bytes(content)
    with open_archive(archive) as opened, pytest.raises(BoneageError, match=r"'1\.png' is damaged"):
        extract_member(opened, opened.infolist()[0], tmp_path / "1.png")
    assert not (tmp_path / "1.png").exists()


def test_a_link_in_an_archive_is_refused(tmp_path):
    archive = tmp_path / "link.zip"
    link = zipfile.ZipInfo("1.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr(link, "/etc/hostname")
    with pytest.raises(BoneageError, match="is a link"):
        open_archive(archive)


def test_an_encrypted_archive_is_refused(tmp_path, write_zip):
    archive = tmp_path / "secret.zip"
    content = bytearray(write_zip(archive, {"1.png": b"one"}))
    content[content.index(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(content)
    with pytest.raises(BoneageError, match="encrypted; unpack it yourself"):
        open_archive(archive)


def test_damage_is_named_and_leaves_no_file(tmp_path, write_zip):
    archive = tmp_path / "set.zip"
    content = bytearray(write_zip(archive, {"1.png": bytes(range(256)) * 40}))
    content[60] ^= 0xFF
    archive.write_bytes(content)
    with open_archive(archive) as opened, pytest.raises(BoneageError, match=r"'1\.png' is damaged"):
        extract_member(opened, opened.infolist()[0], tmp_path / "out" / "1.png")
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_damage_of_any_packing_is_named(method, tmp_path):
    archive = tmp_path / "set.zip"
    with zipfile.ZipFile(archive, "w", method) as made:
        made.writestr("labels.csv", bytes(range(256)) * 400)
    content = bytearray(archive.read_bytes())
    content[45:60] = bytes(15)
    archive.write_bytes(content)
    with open_archive(archive) as opened:
        member = opened.infolist()[0]
        with pytest.raises(BoneageError, match=r"'labels\.csv' is damaged \(.*\); get it again"):
            read_member(opened, member)
        with pytest.raises(BoneageError, match=r"'labels\.csv' is damaged \(.*\); get it again"):
            extract_member(opened, member, tmp_path / "labels.csv")


@pytest.mark.parametrize("content", [b"", b"PK no zip", b"PK\x05\x06" + bytes(10)])
def test_what_is_no_zip_is_named(content, tmp_path):
    (tmp_path / "set.zip").write_bytes(content)
    with pytest.raises(BoneageError, match=r"set\.zip: not a readable zip"):
        open_archive(tmp_path / "set.zip")
