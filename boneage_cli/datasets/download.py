"""Downloads of large files over HTTP, resumed after interruptions and verified at the end."""

from __future__ import annotations

import errno
import http.client
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from tqdm import tqdm

from boneage_cli import __version__
from boneage_cli.datasets.checksum import sha256
from boneage_cli.datasets.disk import readable_bytes, require_free
from boneage_cli.errors import BoneageError
from boneage_cli.files import whole_file
from boneage_cli.progress import track

# HTTP status codes of temporary failures, after which a retry may succeed.
_PASSING_STATUS = {408, 425, 429, 500, 502, 503, 504}
_DISK_TROUBLE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EFBIG}
_BLOCK = 1 << 18
# Seconds without a byte after which a connection counts as broken.
_TIMEOUT = 60.0


class _Changed(Exception):
    """The partial file on disk and the file on the server do not match."""


def download(
    url: str,
    target: Path,
    *,
    digest: str | None = None,
    attempts: int = 6,
    wait: float = 1.0,
) -> str:
    """Downloads a file, or resumes an interrupted download of it.

    The bytes received so far are in ``<target>.part``; ``<target>.part.tag`` holds the ETag or date
    of the file on the server, so that parts of two versions are never joined.

    Args:
        url: An http or https address.
        target: The file to write. If it exists, it is verified and nothing is downloaded.
        digest: The expected SHA-256; None if unknown.
        attempts: Number of consecutive attempts without any data after which this gives up.
        wait: Seconds before the first retry; doubled after each attempt without data.

    Returns:
        The file's SHA-256.

    Raises:
        BoneageError: The server refuses or cannot be reached, the disk is full, or the SHA-256
            differs.
    """
    if not url.startswith(("http://", "https://")):
        raise BoneageError(f"{url}: not an http or https address; correct it")
    if target.exists():
        found = sha256(target)
        if digest and found != digest:
            raise _differs(target, found, digest, f"delete it to get it from {url}")
        return found
    part = target.with_name(f"{target.name}.part")
    _receive_persistently(url, part, digest, attempts, wait)
    found = sha256(part)
    _tag_file(part).unlink(missing_ok=True)
    if digest and found != digest:
        part.unlink()
        raise _differs(part, found, digest, f"{url} gave something else; deleted, run again")
    part.replace(target)
    return found


def _differs(path: Path, found: str, digest: str, way_out: str) -> BoneageError:
    return BoneageError(f"{path}: SHA-256 {found[:12]}… instead of {digest[:12]}…; {way_out}")


def _tag_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.tag")


def _receive_persistently(
    url: str, part: Path, digest: str | None, attempts: int, wait: float
) -> None:
    fruitless = 0
    part.parent.mkdir(parents=True, exist_ok=True)
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            return _receive(url, part, digest)
        except _Changed:
            part.unlink(missing_ok=True)
            problem = "the file on the server changed"
        except urllib.error.HTTPError as error:
            problem = f"HTTP {error.code} {error.reason}"
            if error.code not in _PASSING_STATUS:
                raise BoneageError(f"{url}: {problem}; check the address, or try later") from None
        except OSError as error:
            if error.errno in _DISK_TROUBLE:
                raise BoneageError(f"{part}: {error.strerror}; fix this, then run again") from None
            problem = str(getattr(error, "reason", error)) or type(error).__name__
        except http.client.HTTPException as error:
            problem = type(error).__name__
        so_far = part.stat().st_size if part.exists() else 0
        fruitless = 0 if so_far > before else fruitless + 1
        if fruitless == attempts:
            raise BoneageError(
                f"{url}: {problem}; {readable_bytes(so_far)} are here, run the same command again "
                "to go on"
            )
        time.sleep(wait * 2 ** max(fruitless - 1, 0))


def _receive(url: str, part: Path, digest: str | None) -> None:
    """Makes one request and appends the received bytes.

    Raises:
        OSError: The connection failed or broke before the end.
        _Changed: The partial file on disk must be discarded.
        BoneageError: The rest does not fit on the disk.
    """
    tag = _tag_file(part)
    headers = {"User-Agent": f"boneage/{__version__}"}
    start = part.stat().st_size if part.exists() else 0
    # Without a tag, only a known SHA-256 can reveal that parts of two versions were joined.
    if start and not tag.exists() and digest is None:
        start = 0
    if start:
        headers["Range"] = f"bytes={start}-"
        if tag.exists():
            headers["If-Range"] = tag.read_text(encoding="utf-8")
    try:
        response = urllib.request.urlopen(
            urllib.request.Request(url, headers=headers), timeout=_TIMEOUT
        )
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        # The server has no further bytes: the file is complete, or the part is of another file.
        if error.headers.get("Content-Range", "") == f"bytes */{start}":
            return
        raise _Changed from None
    with response:
        if response.status == 206:
            first = response.headers.get("Content-Range", "").removeprefix("bytes ").split("-")[0]
            if first != str(start):
                raise _Changed
        else:
            start = 0
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else None
        if total:
            require_free(part.parent, total - start)
        if not start:
            part.unlink(missing_ok=True)
            _write_tag(tag, response.headers)
        progress: tqdm[Any] = track(
            description=f"download {part.name.removesuffix('.part')}",
            total=total,
            initial=start,
            unit="B",
            unit_scale=True,
        )
        with part.open("ab") as file, progress as bar:
            received = start
            while block := response.read(_BLOCK):
                file.write(block)
                received += len(block)
                bar.update(len(block))
    if total is not None and received < total:
        raise ConnectionError(f"the connection broke off at {readable_bytes(received)}")


def _write_tag(tag: Path, headers: http.client.HTTPMessage) -> None:
    etag = headers.get("ETag", "")
    # A weak ETag does not guarantee identical bytes.
    version = etag if etag and not etag.startswith("W/") else headers.get("Last-Modified")
    if version:
        with whole_file(tag) as temporary:
            temporary.write_text(version, encoding="utf-8")
    else:
        tag.unlink(missing_ok=True)
