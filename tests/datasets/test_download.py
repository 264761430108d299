import hashlib
import http.server
import threading
from pathlib import Path

import pytest

from boneage_cli.datasets.download import download
from boneage_cli.errors import BoneageError

CONTENT = bytes(range(256)) * 4000
DIGEST = hashlib.sha256(CONTENT).hexdigest()
OTHER = bytes(reversed(range(256))) * 4000


@pytest.fixture
def file(server):
    server.files["set.zip"] = CONTENT
    return server.url + "set.zip"


def test_a_file_arrives_whole_and_its_digest_is_told(server, file, tmp_path):
    assert download(file, tmp_path / "new" / "set.zip") == DIGEST
    assert (tmp_path / "new" / "set.zip").read_bytes() == CONTENT
    assert [entry.name for entry in (tmp_path / "new").iterdir()] == ["set.zip"]


def test_a_connection_that_drops_several_times_is_taken_up_where_it_broke(server, file, tmp_path):
    server.drops = [300_000, 300_000, 0, 100_000]
    download(file, tmp_path / "set.zip", digest=DIGEST, wait=0)
    assert (tmp_path / "set.zip").read_bytes() == CONTENT
    assert [wanted for _, wanted in server.asked] == [
        None,
        "bytes=300000-",
        "bytes=600000-",
        "bytes=600000-",
        "bytes=700000-",
    ]


def test_a_later_command_goes_on_with_what_an_interrupted_one_left(server, file, tmp_path):
    server.drops = [400_000] + [0] * 3
    with pytest.raises(BoneageError, match=r"400 kB are here, run the same command again"):
        download(file, tmp_path / "set.zip", attempts=3, wait=0)
    server.asked.clear()
    download(file, tmp_path / "set.zip", wait=0)
    assert (tmp_path / "set.zip").read_bytes() == CONTENT
    assert server.asked == [("set.zip", "bytes=400000-")]


def test_parts_of_two_versions_are_never_joined(server, file, tmp_path):
    server.drops = [400_000, 0]
    with pytest.raises(BoneageError):
        download(file, tmp_path / "set.zip", attempts=1, wait=0)
    server.files["set.zip"] = OTHER
    download(file, tmp_path / "set.zip", wait=0)
    assert (tmp_path / "set.zip").read_bytes() == OTHER


@pytest.mark.parametrize("known", [DIGEST, None])
def test_a_server_without_version_tags_is_resumed_only_if_the_digest_can_tell(
    server, file, tmp_path, known
):
    server.tags = False
    server.drops = [400_000]
    download(file, tmp_path / "set.zip", digest=known, wait=0)
    assert (tmp_path / "set.zip").read_bytes() == CONTENT
    assert server.asked[1][1] == ("bytes=400000-" if known else None)


def test_a_server_that_knows_no_ranges_is_read_from_the_start_again(server, file, tmp_path):
    server.ranges = False
    server.drops = [400_000]
    download(file, tmp_path / "set.zip", digest=DIGEST, wait=0)
    assert (tmp_path / "set.zip").read_bytes() == CONTENT


def test_a_part_that_is_already_all_needs_no_further_byte(server, file, tmp_path):
    (tmp_path / "set.zip.part").write_bytes(CONTENT)
    download(file, tmp_path / "set.zip", digest=DIGEST, wait=0)
    assert (tmp_path / "set.zip").read_bytes() == CONTENT


def test_a_part_longer_than_the_file_is_thrown_away(server, file, tmp_path):
    (tmp_path / "set.zip.part").write_bytes(CONTENT + b"more")
    download(file, tmp_path / "set.zip", digest=DIGEST, wait=0)
    assert (tmp_path / "set.zip").read_bytes() == CONTENT


def test_a_file_with_another_digest_is_refused_and_not_kept(server, file, tmp_path):
    server.files["set.zip"] = OTHER
    with pytest.raises(BoneageError, match=r"set\.zip\.part: SHA-256 .* instead of"):
        download(file, tmp_path / "set.zip", digest=DIGEST, wait=0)
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_there_is_verified_and_not_fetched_again(server, file, tmp_path):
    target = tmp_path / "set.zip"
    target.write_bytes(CONTENT)
    assert download(file, target, digest=DIGEST) == DIGEST
    target.write_bytes(OTHER)
    with pytest.raises(BoneageError, match="delete it to get it from"):
        download(file, target, digest=DIGEST)
    assert target.read_bytes() == OTHER
    assert not server.asked


def test_a_busy_server_is_asked_again_and_a_missing_file_is_not(server, file, tmp_path):
    server.status = [503, 500]
    download(file, tmp_path / "set.zip", digest=DIGEST, wait=0)
    assert len(server.asked) == 3
    server.asked.clear()
    with pytest.raises(BoneageError, match=r"none\.zip: HTTP 404"):
        download(server.url + "none.zip", tmp_path / "none.zip", wait=0)
    assert len(server.asked) == 1


def test_a_server_that_cannot_be_reached_is_named(tmp_path):
    with pytest.raises(BoneageError, match=r"http://127\.0\.0\.1:9/set\.zip: .*run the same"):
        download("http://127.0.0.1:9/set.zip", tmp_path / "set.zip", attempts=2, wait=0)


def test_an_address_that_is_no_web_address_is_refused(tmp_path):
    with pytest.raises(BoneageError, match="not an http or https address"):
        download("file:///etc/hostname", tmp_path / "set.zip")


def test_a_file_larger_than_the_free_disk_is_refused_before_it_is_fetched(tmp_path: Path):
    class Boastful(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(10**18))
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Boastful) as boastful:
        threading.Thread(target=boastful.handle_request, daemon=True).start()
        with pytest.raises(BoneageError, match="needs 1,000,000,000 GB of disk"):
            download(f"http://127.0.0.1:{boastful.server_port}/x", tmp_path / "x", wait=0)
    assert not (tmp_path / "x").exists()
