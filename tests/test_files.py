from __future__ import annotations

import os
import sys
from itertools import count

import pytest

from boneage_cli.files import whole_file


def test_a_file_that_takes_the_place_of_a_link_leaves_alone_what_it_led_to(tmp_path):
    # Data sets link to the user's radiographs, which must not be changed.
    (tmp_path / "original").write_text("kept")
    (tmp_path / "link").symlink_to(tmp_path / "original")
    with whole_file(tmp_path / "link") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "original").read_text() == "kept"
    assert (tmp_path / "link").read_text() == "new"


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_a_new_file_follows_the_umask(tmp_path, umask):
    before = os.umask(umask)
    try:
        with whole_file(tmp_path / "ages.csv") as temporary:
            temporary.write_text("new")
    finally:
        os.umask(before)
    assert (tmp_path / "ages.csv").stat().st_mode & 0o777 == 0o666 & ~umask


def test_an_interrupt_at_any_moment_leaves_the_old_file_or_the_new_one_and_nothing_else(tmp_path):
    seen = set()
    for moment in count():
        (tmp_path / "ages.csv").write_text("old")
        interrupted = _write_with_an_interrupt(tmp_path / "ages.csv", moment)
        assert [file.name for file in tmp_path.iterdir()] == ["ages.csv"]
        seen.add((tmp_path / "ages.csv").read_text())
        if not interrupted:
            break
    assert seen == {"old", "new"}


def _write_with_an_interrupt(path, moment):
    """Interrupts writing at its ``moment``-th instruction; False if it finished before."""
    left = moment

    def trace(frame, event, _argument):
        nonlocal left
        # Instructions of the package and the standard library count, those of this file do not.
        if frame.f_code.co_filename == __file__:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            left -= 1
            if left < 0:
                sys.settrace(None)
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        with whole_file(path) as temporary:
            temporary.write_text("new")
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False
