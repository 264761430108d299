"""Tests of worker processes: the same results as in one process, and a clean shutdown."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import pytest

from boneage_cli.core.prediction.cases import Prediction
from boneage_cli.core.prediction.inputs import cases
from boneage_cli.core.prediction.predictor import Predictor
from boneage_cli.datasets.manifest import read_manifest
from boneage_cli.processes import ENOUGH_FOR_PROCESSES, processes_for

BONEAGE = [sys.executable, "-m", "boneage_cli"]
BROKEN, MISSING = 100, 400


@pytest.fixture(scope="module")
def listed(demo_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A list long enough for worker processes; one file is damaged and one missing."""
    folder = tmp_path_factory.mktemp("lists")
    (folder / "broken.png").write_bytes(b"no picture")
    paths = list(islice(cycle(read_manifest(demo_data, "test")["path"]), ENOUGH_FOR_PROCESSES + 60))
    paths[BROKEN], paths[MISSING] = str(folder / "broken.png"), str(folder / "missing.png")
    listed = folder / "list.txt"
    listed.write_text("\n".join(paths) + "\n")
    return listed


@pytest.fixture
def predicting(listed: Path) -> Iterator[subprocess.Popen[str]]:
    """``boneage predict`` with two worker processes, after its first result."""
    process = subprocess.Popen(
        [*BONEAGE, "predict", str(listed), *["--sex", "F", "--force", "--workers", "2"]],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        # A test suite in the background ignores SIGINT; children would inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    assert "months" in process.stdout.readline()
    yield process
    process.kill()
    process.communicate()


def complaint(process: subprocess.Popen[str]) -> str:
    """Waits for a command and returns its standard error without the line of the model."""
    name, _, rest = process.communicate()[1].partition("\n")
    assert name.startswith("model: ")
    return rest


def workers(process: subprocess.Popen[str]) -> list[int]:
    """Returns the ids of a process's worker processes."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The name in brackets may contain spaces; the parent's id is the second field after it.
            parent = int(status.read_text().rpartition(")")[2].split()[1])
            called = status.with_name("cmdline").read_bytes()
        except OSError:
            continue
        if parent == process.pid and b"spawn_main" in called:
            found.append(int(status.parent.name))
    return found


def have_ended(numbers: list[int]) -> bool:
    """Waits up to ten seconds for each process to end; False if one is still running."""
    for number in numbers:
        try:
            handle = os.pidfd_open(number)
        except ProcessLookupError:
            continue
        if not select.select([handle], [], [], 10)[0]:
            return False
    return True


def test_processes_answer_what_one_answers(listed: Path, tmp_path: Path) -> None:
    def answered(workers: int) -> tuple[str, str]:
        table = tmp_path / f"{workers}.csv"
        options = f"--sex F --workers {workers} --interval 90 --force --output {table}".split()
        done = subprocess.run(
            [*BONEAGE, "predict", str(listed), *options],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1, done.stderr
        return table.read_text(), done.stderr.replace(str(table), "")

    assert answered(2) == answered(1)


def test_processes_prepare_what_another_backend_answers(listed: Path, demo_bundle: Path) -> None:
    # As with a single GPU: worker processes only read and crop.
    predictor = Predictor.load([demo_bundle], device="cpu", backend="onnxruntime")

    def answered(**options: Any) -> list[Prediction]:
        return list(predictor.predict_files(cases([str(listed)], male=False), **options))

    assert predictor.processes(2) == 2
    assert answered(workers=2, processes=True) == answered(workers=1)


def test_a_network_that_each_process_had_to_convert_stays_in_one(
    demo_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Predictor.load(device="cpu").processes(2) == 2
    assert Predictor.load([demo_bundle], device="cpu").processes(2) == 2
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BONEAGE_CACHE", str(tmp_path / "file" / "cache"))
    predictor = Predictor.load([demo_bundle], device="cpu")
    assert not predictor._networks_travel


def test_processes_make_the_crops_that_one_makes(listed: Path, tmp_path: Path) -> None:
    def crops(workers: int) -> dict[str, bytes]:
        folder = tmp_path / str(workers)
        options = f"--size 32 --workers {workers} --output {folder}".split()
        done = subprocess.run(
            [*BONEAGE, "locate-rois", str(listed), *options], capture_output=True, check=False
        )
        assert done.returncode == 1
        files = {str(path.relative_to(folder)): path for path in folder.rglob("*.*")}
        return {name: path.read_bytes() for name, path in files.items() if "digests" not in name}

    shared = crops(2)
    assert len(shared) > 2 * ENOUGH_FOR_PROCESSES
    assert shared == crops(1)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_process_that_is_ended_ends_the_command_in_one_line(
    predicting: subprocess.Popen[str], number: int
) -> None:
    first, *others = workers(predicting)
    os.kill(first, number)
    errors = complaint(predicting)
    assert predicting.returncode == 2
    assert errors.count("\n") == 1
    assert "perhaps because memory ran out; --workers 1" in errors
    assert have_ended(others)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_to_all_of_them_ends_them_in_one_line(
    predicting: subprocess.Popen[str], number: int, code: int
) -> None:
    shared = workers(predicting)
    assert len(shared) == 2
    os.killpg(predicting.pid, number)
    assert complaint(predicting) == "error: interrupted; run the same command again\n"
    assert predicting.returncode == code
    assert have_ended(shared)


def test_processes_end_with_the_one_that_started_them(predicting: subprocess.Popen[str]) -> None:
    shared = workers(predicting)
    assert len(shared) == 2
    predicting.kill()
    assert have_ended(shared)


INTERRUPTED = """
import signal
from boneage_cli.interrupts import interrupts_wait

try:
    with interrupts_wait():
        signal.raise_signal(signal.SIGINT)
        print("through")
    print("never")
except KeyboardInterrupt:
    print("interrupted")
with interrupts_wait():
    pass
signal.raise_signal(signal.SIGINT)
"""


def test_an_interrupt_waits_until_what_cannot_be_interrupted_is_through() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", INTERRUPTED],
        capture_output=True,
        text=True,
        # A test suite in the background ignores SIGINT; children would inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert ended.stdout.split() == ["through", "interrupted"]
    assert "KeyboardInterrupt" in ended.stderr


def test_processes_are_as_many_as_the_cores_but_no_more_than_their_memory_is_worth() -> None:
    assert [processes_for(workers) for workers in (1, 2, 16, 128)] == [0, 2, 16, 16]
