"""Promises about what an interrupted call of predict leaves."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from boneage_cli.core.batch_prediction import predict_batch
from boneage_cli.core.prediction.cases import Prediction
from boneage_cli.datasets.drawn_hands import draw_hand
from boneage_cli.errors import BoneageError, BoneageWarning
from boneage_cli.imaging.png import write_png
from boneage_cli.locks import try_lock


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    for number in range(6):
        hand = draw_hand(60 + 20 * number, True, np.random.default_rng(number))
        write_png(tmp_path / "scans" / f"{number}.png", hand.pixels)
    return tmp_path / "scans"


def interrupt_after(count: int) -> Callable[[Prediction], None]:
    """Ends a call, as Ctrl-C does, once so many radiographs are answered."""
    told: list[Prediction] = []

    def tell(prediction: Prediction) -> None:
        if len(told) == count:
            raise KeyboardInterrupt
        told.append(prediction)

    return tell


@pytest.mark.parametrize("style", ["csv", "json", "jsonl"])
def test_a_table_that_was_interrupted_ends_as_if_it_had_not_been(
    style: str, scans: Path, demo_bundle: Path, tmp_path: Path
) -> None:
    whole, parts = tmp_path / f"whole.{style}", tmp_path / f"parts.{style}"
    options = {"male": True, "style": style, "device": "cpu", "batch_size": 2}
    predict_batch([str(scans)], [demo_bundle], output=whole, **options)
    for count in (2, 1):
        with pytest.raises(KeyboardInterrupt):
            predict_batch(
                [str(scans)], [demo_bundle], output=parts, tell=interrupt_after(count), **options
            )
        assert not parts.exists()
    done: list[int] = []
    told: list[Prediction] = []
    outcome = predict_batch(
        *([str(scans)], [demo_bundle]),
        **options,
        output=parts,
        go_on=done.append,
        tell=told.append,
    )
    assert done == [3]
    assert len(told) == 3
    assert (outcome.total, outcome.failed) == (6, 0)
    assert parts.read_bytes() == whole.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == [
        *(parts.name, whole.name)
    ]


@pytest.fixture
def interrupted(scans: Path, demo_bundle: Path, tmp_path: Path) -> Callable[..., list[int]]:
    """A call that was interrupted after three of six; gives what another call goes on after."""
    options = {"male": True, "style": "csv", "device": "cpu", "output": tmp_path / "ages.csv"}
    with pytest.raises(KeyboardInterrupt):
        predict_batch([str(scans)], [demo_bundle], tell=interrupt_after(3), **options)

    def again(**others: object) -> list[int]:
        done: list[int] = []
        predict_batch([str(scans)], [demo_bundle], go_on=done.append, **options | others)
        return done

    return again


def test_other_options_begin_anew_and_leave_nothing_of_the_interrupted_call(
    interrupted: Callable[..., list[int]], tmp_path: Path
) -> None:
    assert interrupted(male=False) == []
    assert not list(tmp_path.glob(".ages*"))
    assert interrupted() == []


@pytest.mark.parametrize("options", [{"force": True}, {"tta": True}, {"age": 100.0}])
def test_every_option_that_changes_a_row_begins_anew(
    options: dict[str, object], interrupted: Callable[..., list[int]]
) -> None:
    assert interrupted(**options) == []


def test_with_pictures_nothing_is_taken_up_since_those_of_the_rows_would_be_missing(
    interrupted: Callable[..., list[int]], tmp_path: Path
) -> None:
    assert interrupted(explain=tmp_path / "why") == []
    assert len(list((tmp_path / "why").glob("*.png"))) == 6


def test_paths_from_standard_input_are_all_predicted_again(
    scans: Path, demo_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = "".join(f"{path}\n" for path in sorted(scans.iterdir())).encode()
    options = {"male": True, "style": "csv", "device": "cpu", "output": tmp_path / "ages.csv"}
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(paths)))
    with pytest.raises(KeyboardInterrupt):
        predict_batch(["-"], [demo_bundle], tell=interrupt_after(3), **options)
    # Others may come next time.
    assert not list(tmp_path.glob(".ages*"))
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(paths)))
    assert predict_batch(["-"], [demo_bundle], **options).total == 6


def test_other_options_for_another_table_leave_the_interrupted_one(
    interrupted: Callable[..., list[int]], tmp_path: Path
) -> None:
    assert interrupted(male=False, output=tmp_path / "boys.csv") == []
    assert interrupted() == [3]


def test_a_table_is_whole_even_if_its_hidden_file_is_removed_meanwhile(
    scans: Path, demo_bundle: Path, tmp_path: Path
) -> None:
    def remove(prediction: Prediction) -> None:
        for left in tmp_path.glob(".ages*"):
            left.unlink()

    options = {"male": True, "style": "csv", "device": "cpu", "output": tmp_path / "ages.csv"}
    predict_batch([str(scans)], [demo_bundle], tell=remove, **options)
    assert len((tmp_path / "ages.csv").read_text().splitlines()) == 7


def test_a_name_that_no_file_can_have_is_an_error_row_of_the_table(
    scans: Path, demo_bundle: Path, tmp_path: Path
) -> None:
    table = tmp_path / "children.csv"
    table.write_text("path,sex\nscans/0.png,F\nscans/\0.png,F\n")
    outcome = predict_batch(
        [str(table)], [demo_bundle], style="csv", device="cpu", output=tmp_path / "ages.csv"
    )
    assert (outcome.total, outcome.failed) == (2, 1)


def test_a_row_that_was_cut_off_is_predicted_again(
    interrupted: Callable[..., list[int]], tmp_path: Path
) -> None:
    (left,) = tmp_path.glob(".ages*")
    left.write_bytes(left.read_bytes()[:-5])
    assert interrupted() == [2]
    assert len((tmp_path / "ages.csv").read_text().splitlines()) == 7


def replaced(scans: Path) -> None:
    # Older than what was predicted, as a file that is copied with its time may be.
    (scans / "1.png").write_bytes((scans / "5.png").read_bytes())
    os.utime(scans / "1.png", (0, 0))


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        (replaced, 1),
        (lambda scans: (scans / "05.png").write_bytes((scans / "5.png").read_bytes()), 1),
        (lambda scans: (scans / "0.png").unlink(), 0),
        (lambda scans: [(scans / f"{number}.png").unlink() for number in (2, 3, 4, 5)], 2),
    ],
    ids=["a file is replaced", "a file is added", "the first is removed", "only two are left"],
)
def test_inputs_that_changed_in_between_are_predicted_again(
    change: Callable[[Path], object],
    kept: int,
    interrupted: Callable[..., list[int]],
    scans: Path,
    tmp_path: Path,
) -> None:
    change(scans)
    with pytest.warns(BoneageWarning, match=f"inputs have changed .* the first {kept} "):
        assert interrupted() == ([kept] if kept else [])
    continued = (tmp_path / "ages.csv").read_bytes()
    assert interrupted() == []
    assert (tmp_path / "ages.csv").read_bytes() == continued


def test_an_archive_that_is_not_mounted_loses_nothing_of_an_interrupted_table(
    scans: Path, demo_bundle: Path, tmp_path: Path
) -> None:
    listed = tmp_path / "list.txt"
    listed.write_text("".join(f"{path}\n" for path in sorted(scans.iterdir())))
    options = {"male": True, "style": "csv", "device": "cpu", "output": tmp_path / "ages.csv"}
    with pytest.raises(KeyboardInterrupt):
        predict_batch([str(listed)], [demo_bundle], tell=interrupt_after(3), **options)
    elsewhere = scans.rename(tmp_path / "elsewhere")
    with pytest.raises(BoneageError, match="none of its paths exists"):
        predict_batch([str(listed)], [demo_bundle], **options)
    elsewhere.rename(scans)
    done: list[int] = []
    predict_batch([str(listed)], [demo_bundle], go_on=done.append, **options)
    assert done == [3]


@pytest.mark.parametrize("corrected", ["scans/1.png,M,100", "scans/1.png,F,101"])
def test_a_child_that_is_corrected_in_between_is_predicted_again(
    corrected: str, scans: Path, demo_bundle: Path, tmp_path: Path
) -> None:
    table, output = tmp_path / "children.csv", tmp_path / "ages.csv"
    options = {"style": "csv", "device": "cpu", "output": output}
    lines = [f"scans/{number}.png,F,100" for number in range(6)]
    table.write_text("\n".join(["path,sex,age_months", *lines]))
    with pytest.raises(KeyboardInterrupt):
        predict_batch([str(table)], [demo_bundle], tell=interrupt_after(3), **options)
    lines[1] = corrected
    table.write_text("\n".join(["path,sex,age_months", *lines]))
    with pytest.warns(BoneageWarning, match="the inputs have changed .* the first 1 "):
        predict_batch([str(table)], [demo_bundle], **options)
    continued = output.read_bytes()
    predict_batch([str(table)], [demo_bundle], **options)
    assert output.read_bytes() == continued


def test_a_table_that_another_run_is_writing_is_left_to_it(
    interrupted: Callable[..., list[int]], tmp_path: Path
) -> None:
    (left,) = tmp_path.glob(".ages*")
    with left.open("a") as other:
        assert try_lock(other)
        other.write('{"row": ')
        other.flush()
        with pytest.raises(BoneageError, match="another run of the same command"):
            interrupted()
        # Not even the row that it has begun is taken from it.
        assert left.read_text().endswith('{"row": ')
    assert interrupted() == [3]


def test_the_same_names_in_another_folder_are_other_radiographs(
    scans: Path, demo_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"male": True, "style": "csv", "device": "cpu", "output": tmp_path / "ages.csv"}
    monkeypatch.chdir(scans)
    with pytest.raises(KeyboardInterrupt):
        predict_batch(["0.png", "1.png"], [demo_bundle], tell=interrupt_after(1), **options)
    (tmp_path / "others").mkdir()
    for name in ("0.png", "1.png"):
        (tmp_path / "others" / name).write_bytes((scans / "5.png").read_bytes())
    monkeypatch.chdir(tmp_path / "others")
    done: list[int] = []
    predict_batch(["0.png", "1.png"], [demo_bundle], go_on=done.append, **options)
    assert done == []


def test_a_command_that_is_stopped_at_once_leaves_the_rows_of_the_same_command(
    scans: Path, demo_bundle: Path, tmp_path: Path
) -> None:
    options = {"male": True, "style": "csv", "device": "cpu", "output": tmp_path / "ages.csv"}

    def first(prediction: Prediction) -> None:
        # Meanwhile, the same command predicts two, and is interrupted.
        with pytest.raises(KeyboardInterrupt):
            predict_batch([str(scans)], [demo_bundle], tell=interrupt_after(2), **options)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict_batch([str(scans)], [demo_bundle], tell=first, **options)
    done: list[int] = []
    predict_batch([str(scans)], [demo_bundle], go_on=done.append, **options)
    assert done == [2]
