from __future__ import annotations

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    BasicTextSRStorage,
    ComputedRadiographyImageStorage,
    ExplicitVRLittleEndian,
    generate_uid,
)
from typer.testing import CliRunner

from boneage_cli.cli.app import app
from boneage_cli.core.bundle import Bundle, build_network, load_bundle, save_bundle
from boneage_cli.core.experiment_file import parse_experiment
from boneage_cli.core.intervals import calibrate
from boneage_cli.core.prediction.cases import FAILURES, REASONS
from boneage_cli.core.prediction.deviation_score import deviation_score
from boneage_cli.core.prediction.predictor import Predictor
from boneage_cli.imaging.reading import read_radiograph

LINE = re.compile(r"^(?P<path>.+): (\d+) years (\d+) months \((?P<months>-?\d+\.\d) months\)$")


@pytest.fixture
def hands(demo_data, tmp_path, monkeypatch) -> Path:
    """The current folder, with the drawn hands a.png, b.png and c.png in hands/."""
    (tmp_path / "hands").mkdir()
    for name, source in zip("abc", sorted((demo_data / "test").glob("*.png")), strict=False):
        (tmp_path / "hands" / f"{name}.png").symlink_to(source)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def predict(hands, demo_bundle):
    def run(line: str, status: int = 0, model: str | None = str(demo_bundle), stdin: str = ""):
        arguments = ["predict", *line.split()] + (["--model", model] if model else [])
        result = CliRunner().invoke(app, [*arguments, "--device", "cpu"], input=stdin)
        assert result.exit_code == status, result.output
        return result

    return run


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def as_dicom(source: Path, target: Path, sex: str) -> None:
    pixels = cv2.imread(str(source), cv2.IMREAD_GRAYSCALE)
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = ComputedRadiographyImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset.SOPClassUID = ComputedRadiographyImageStorage
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID
    dataset.PatientSex = sex
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.SamplesPerPixel = 1
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit = 7
    dataset.PixelRepresentation = 0
    dataset.PixelData = np.pad(pixels.ravel(), (0, pixels.size % 2)).tobytes()
    dataset.save_as(target, enforce_file_format=True)


def test_each_radiograph_of_a_list_gets_the_line_of_s3_in_order(predict):
    Path("list.txt").write_text("hands/b.png\n# a comment\nhands/a.png\n")
    lines = predict("list.txt --sex M").stdout.splitlines()
    matches = [LINE.match(line) for line in lines]
    assert [match and match["path"] for match in matches] == ["hands/b.png", "hands/a.png"]


def test_the_command_gives_the_months_of_the_library(predict, demo_bundle):
    (row,) = json.loads(predict("hands/a.png --sex female --format json").stdout)
    radiograph = read_radiograph("hands/a.png")
    (months,) = Predictor.load([demo_bundle], device="cpu").predict([radiograph], [False])
    assert row["months"] == pytest.approx(months, abs=1e-3)
    assert (row["sex"], row["error"]) == ("F", None)


def test_the_sex_of_a_table_decides_and_the_option_fills_its_gaps(predict):
    Path("children.csv").write_text("path,sex\nhands/a.png,M\nhands/b.png,\n")
    found = rows(predict("children.csv --sex f --format csv").stdout)
    assert [row["sex"] for row in found] == ["M", "F"]
    assert all(row["months"] for row in found)


def test_a_model_that_needs_sex_refuses_images_that_cannot_state_one(predict):
    result = predict("hands", status=2)
    assert result.stdout == ""
    assert "--sex M or --sex F" in result.stderr


def test_a_row_without_sex_is_an_error_row_and_the_others_are_predicted(predict):
    Path("children.csv").write_text("path,sex\nhands/a.png,\nhands/b.png,F\n")
    result = predict("children.csv --format csv", status=1)
    first, second = rows(result.stdout)
    assert first["months"] == ""
    assert "sex unknown" in first["error"]
    assert float(second["months"])
    assert "hands/a.png: sex unknown" in result.stderr


def test_unreadable_images_are_error_rows_and_the_others_are_predicted(predict):
    Path("cut.png").write_bytes(Path("hands/a.png").read_bytes()[:2000])
    result = predict("cut.png gone.png hands/b.png --sex M --format json", status=1)
    cut, gone, fine = json.loads(result.stdout)
    assert "truncated" in cut["error"]
    assert gone["error"]
    (alone,) = json.loads(predict("hands/b.png --sex M --format json").stdout)
    assert fine["months"] == pytest.approx(alone["months"], abs=1e-3)
    assert (cut["months"], gone["months"]) == (None, None)
    assert result.stderr.count("error: ") == 2
    assert result.stderr.count("cut.png") == 1


def test_a_list_of_an_archive_that_is_not_mounted_is_one_error_and_no_table(predict):
    Path("list.txt").write_text("".join(f"nas/IM{number}\n" for number in range(300)))
    result = predict("list.txt --sex M -o ages.csv", status=2)
    assert result.stderr.count("\n") == 1
    assert "list.txt: none of its paths exists (the first is nas/IM0)" in result.stderr
    assert not list(Path().glob("*ages*"))
    # Names on standard input are answered as they come.
    result = predict("- --sex M -f csv", status=1, stdin="nas/IM0\nnas/IM1\n")
    assert [row["reason"] for row in rows(result.stdout)] == ["unreadable"] * 2


def test_standard_output_carries_results_alone(predict):
    result = predict("gone.png hands/a.png --sex M", status=1)
    assert all(LINE.match(line) for line in result.stdout.splitlines())
    assert "gone.png" in result.stderr


def test_a_dicom_file_states_the_sex_and_a_contradiction_is_told(predict):
    as_dicom(Path("hands/a.png"), Path("girl.dcm"), "F")
    (row,) = rows(predict("girl.dcm --format csv").stdout)
    assert row["sex"] == "F"
    result = predict("girl.dcm --sex M --format csv")
    assert rows(result.stdout)[0]["sex"] == "M"
    assert "girl.dcm: taken as M, but it says F" in result.stderr
    assert rows(result.stdout)[0]["warning"] == "taken as M, but it says F"
    assert "taken as" not in predict("girl.dcm --sex F").stderr


def test_a_contradicted_sex_that_only_the_score_takes_is_told(predict, tiny, tmp_path):
    without = tiny.model_copy(update={"model": tiny.model.model_copy(update={"gender": False})})
    network = build_network(without, 120, 40)
    model = tmp_path / "without.safetensors"
    save_bundle(Bundle(without, 120, 40, network.state_dict()), model)
    as_dicom(Path("hands/a.png"), Path("boy.dcm"), "M")
    told = predict("boy.dcm --sex F --age 10y", model=str(model)).stderr
    assert "boy.dcm: taken as F, but it says M" in told
    assert "taken as" not in predict("boy.dcm --sex F", model=str(model)).stderr


def test_a_dicom_file_gives_the_age_of_the_same_pixels_in_a_png(predict):
    as_dicom(Path("hands/a.png"), Path("a.dcm"), "F")
    dicom, png = rows(predict("a.dcm hands/a.png --sex F --format csv").stdout)
    assert float(dicom["months"]) == pytest.approx(float(png["months"]), abs=1e-3)


def test_standard_input_is_a_list(predict):
    lines = predict("- -s M", stdin="hands/c.png\n\nhands/a.png\n").stdout.splitlines()
    assert [line.split(":")[0] for line in lines] == ["hands/c.png", "hands/a.png"]


@pytest.mark.parametrize(
    ("closed", "status", "said"),
    [
        ("hands 2>&-", 0, ["hands/a.png", "hands/b.png", "hands/c.png"]),
        ("hands >&-", 0, []),
        ("- <&-", 2, ["error"]),
    ],
)
def test_streams_that_the_caller_closed_end_no_command(hands, demo_bundle, closed, status, said):
    command = f"{sys.executable} -m boneage_cli predict --sex M --model {demo_bundle} {closed}"
    result = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert result.returncode == status
    assert [line.split(":")[0] for line in (result.stdout + result.stderr).splitlines()] == said


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_among_radiographs_keeps_nobody_waiting(predict, hands):
    os.mkfifo("hands/b2.png")
    result = predict("hands --sex M", status=1)
    assert len(result.stdout.splitlines()) == 3
    assert "hands/b2.png: is a pipe or a device, not an image" in result.stderr


def test_a_link_to_itself_is_one_line(predict, hands):
    Path("loop.csv").symlink_to("loop.csv")
    result = predict("hands --sex M -o loop.csv", status=2)
    assert "loop.csv" in result.stderr.splitlines()[-1]
    assert result.stderr.splitlines()[-1].startswith("error: ")


def test_names_on_standard_input_are_answered_as_they_come(hands, demo_bundle):
    line = f"predict - --sex M --model {demo_bundle} --device cpu"
    process = subprocess.Popen(
        [sys.executable, "-m", "boneage_cli", *line.split()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    for name in ("a", "b"):
        process.stdin.write(f"hands/{name}.png\n")
        process.stdin.flush()
        assert process.stdout.readline().startswith(f"hands/{name}.png: ")
    # The process is waiting for input, which must not keep it from ending.
    process.send_signal(signal.SIGINT)
    assert process.wait() == 130
    assert process.stderr.read() == "error: interrupted; run the same command again\n"


def test_the_ending_of_the_output_file_chooses_the_format(predict):
    result = predict("hands --sex M --output out/ages.csv")
    assert result.stdout == ""
    assert "3 radiographs, 0 failed: out/ages.csv" in result.stderr
    assert [row["path"] for row in rows(Path("out/ages.csv").read_text())] == [
        "hands/a.png",
        "hands/b.png",
        "hands/c.png",
    ]
    predict("hands --sex M --output out/ages.json")
    assert len(json.loads(Path("out/ages.json").read_text())) == 3


@pytest.mark.parametrize("line", ["hands/b.png -o hands/a.png", "list.txt -o list.txt"])
def test_nothing_that_is_read_is_written_over(predict, line):
    Path("list.txt").write_text("hands/a.png\n")
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    assert "--output" in predict(f"{line} --sex M", status=2).stderr
    assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("line", ["arch -o arch/IM0001", "list.txt -o arch/IM0001"])
def test_a_radiograph_that_an_input_leads_to_is_not_written_over(predict, hands, line):
    Path("arch").mkdir()
    as_dicom(hands / "hands" / "a.png", Path("arch/IM0001"), "F")
    Path("list.txt").write_text("arch/IM0001\n")
    before = Path("arch/IM0001").read_bytes()
    assert "holds no text" in predict(line, status=2).stderr
    assert Path("arch/IM0001").read_bytes() == before


def test_an_output_that_is_a_link_leads_to_the_ages(predict):
    Path("kept").mkdir()
    Path("ages.csv").symlink_to("kept/ages.csv")
    predict("hands --sex M -o ages.csv")
    assert Path("ages.csv").is_symlink()
    assert len(rows(Path("kept/ages.csv").read_text())) == 3


@pytest.mark.skipif(not Path("/dev/stdout").exists(), reason="this system has no /dev/stdout")
def test_standard_output_can_be_named_as_a_file(hands, demo_bundle):
    command = [sys.executable, "-m", "boneage_cli", "predict", "hands/a.png", "--sex", "M"]
    result = subprocess.run(
        [*command, "--model", str(demo_bundle), "--device", "cpu", "-o", "/dev/stdout"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert LINE.match(result.stdout.rstrip("\n"))


@pytest.mark.parametrize("name", ["ages.xlsx", "ages.tsv"])
def test_an_ending_that_promises_another_format_is_refused(predict, name):
    assert (
        "name it .txt, .csv, .json or .jsonl"
        in predict(f"hands --sex M -o {name}", status=2).stderr
    )
    assert not Path(name).exists()
    predict(f"hands --sex M -o {name} --format csv")


def test_a_bad_row_of_a_table_is_an_error_row_and_the_others_are_predicted(predict):
    Path("list.csv").write_text("path,sex\nhands/a.png,M\nhands/b.png,X\nhands/c.png,F\n,\n")
    result = predict("list.csv --format csv", status=1)
    first, bad, last = rows(result.stdout)
    assert first["months"]
    assert last["months"]
    assert (bad["path"], bad["months"]) == ("hands/b.png", "")
    assert "list.csv, line 3: sex 'X' is not understood" in bad["error"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_at_the_other_end_is_told_in_one_line(hands, demo_bundle):
    command = [sys.executable, "-m", "boneage_cli", "predict", "hands/a.png", "--sex", "M"]
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(
            [*command, "--model", str(demo_bundle), "--device", "cpu"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert result.returncode == 2
    assert "standard output cannot be written (No space left on device)" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_command_that_is_ended_leaves_no_table_and_goes_on_when_it_is_typed_again(
    hands, demo_bundle, number
):
    Path("list.txt").write_text("hands/a.png\nhands/b.png\ngone.png\n" * 1000)
    command = [sys.executable, "-m", "boneage_cli", "predict", "list.txt", "--sex", "M"]
    command += ["--model", str(demo_bundle), "--device", "cpu", "-o", "out/ages.csv"]
    with Path("errors.txt").open("w") as errors:
        process = subprocess.Popen(command, stderr=errors)
    while not any(path.stat().st_size for path in Path("out").glob(".ages*")):
        assert process.poll() is None
    process.send_signal(number)
    assert process.wait() == (143 if number == signal.SIGTERM else -number)
    said = Path("errors.txt").read_text().endswith("interrupted; run the same command again\n")
    assert said == (number == signal.SIGTERM)
    (left,) = Path("out").iterdir()
    assert left.name.startswith(".ages.csv-")
    again = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    assert again.returncode == 1
    assert re.search(r"going on after [\d,]+ files? of an interrupted run", again.stderr)
    assert "3,000 radiographs, 1,000 failed (1,000 unreadable): out/ages.csv" in again.stderr
    assert [path.name for path in Path("out").iterdir()] == ["ages.csv"]
    found = [(row["path"], row["months"]) for row in rows(Path("out/ages.csv").read_text())]
    assert found == found[:3] * 1000
    assert len({months for _, months in found[:3]}) == 3


@pytest.mark.parametrize("views", ["", " --tta"])
def test_several_models_are_averaged(predict, demo_bundle, tiny, views):
    torch.manual_seed(1)
    other = Bundle(tiny, 90, 30, build_network(tiny, 90, 30).state_dict())
    save_bundle(other, Path("other.safetensors"))

    def months(model: str) -> list[float]:
        line = f"hands --sex M --format csv --model {model}{views}"
        return [float(row["months"]) for row in rows(predict(line, model=None).stdout)]

    first, second = (np.array(months(each)) for each in (demo_bundle, "other.safetensors"))
    assert np.abs(first - second).min() > 1
    for both in (f"{demo_bundle},other.safetensors", f"{demo_bundle} --model other.safetensors"):
        assert months(both) == pytest.approx((first + second) / 2, abs=0.01)


def test_without_a_model_the_package_s_own_answers_and_is_named(predict):
    # It was trained on radiographs and refuses drawings without --force.
    result = predict("hands/a.png --sex M --force", model=None)
    assert "rsna.safetensors" in result.stderr
    assert "months)" in result.stdout


def test_the_order_of_arguments_that_s3_takes_is_answered_with_ours(predict):
    assert "--sex M" in predict("hands M", status=2).stderr


def test_views_that_differ_change_the_age(predict):
    plain = predict("hands --sex M --format csv").stdout
    assert predict("hands --sex M --format csv --tta").stdout != plain


def test_a_reader_that_has_seen_enough_ends_the_command_quietly(hands, demo_bundle):
    Path("list.txt").write_text("hands/a.png\n" * 3000)
    command = [sys.executable, "-m", "boneage_cli", "predict", "list.txt", "--sex", "M"]
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [*command, "--model", str(demo_bundle), "--device", "cpu"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={"PYTHONPATH": str(root), "PATH": ""},
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert LINE.match(process.stdout.readline().decode().rstrip("\n"))
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 141


def test_the_help_is_a_short_manual_with_examples(predict):
    result = CliRunner().invoke(app, ["predict", "--help"], env={"COLUMNS": "100"})
    text = " ".join(result.stdout.split())
    for promise in (
        "boneage predict hand.png --sex F",
        "hand.png: 10 years 6 months (126.5 months)",
        "Exit status",
        "not a medical device",
    ):
        assert promise in text


@pytest.fixture
def calibrated(demo_bundle, tmp_path) -> str:
    """The tiny model with known interval half widths: 10 months for girls, 20 for boys."""
    table = pd.DataFrame({"true": [140.0] * 200, "sex": ["F", "M"] * 100})
    table["predicted"] = table["true"] + table["sex"].map({"F": 10.0, "M": 20.0})
    bundle = replace(load_bundle(demo_bundle), calibration=calibrate(table, "made for this test"))
    save_bundle(bundle, tmp_path / "calibrated.safetensors")
    return str(tmp_path / "calibrated.safetensors")


def test_an_interval_lies_around_the_age_in_every_format(predict, calibrated):
    for sex, half in (("F", 10), ("M", 20)):
        (row,) = rows(
            predict(f"hands/a.png -s {sex} --interval 90 -f csv", model=calibrated).stdout
        )
        months = float(row["months"])
        assert float(row["low"]) == pytest.approx(max(0, months - half), abs=1e-3)
        assert float(row["high"]) == pytest.approx(months + half, abs=1e-3)
    text = predict("hands/a.png -s F --interval 90", model=calibrated).stdout
    assert re.search(r"months\), \d+ years \d+ months to \d+ years \d+ months$", text.strip())
    plain = predict("hands/a.png -s F -f csv", model=calibrated).stdout
    assert rows(plain)[0]["low"] == ""


def test_a_model_without_calibration_gives_no_interval(predict):
    assert (
        "has no calibration for --interval"
        in predict("hands/a.png -s F --interval 90", status=2).stderr
    )


@pytest.mark.parametrize("level", ["100", "49%", "0.9", "-90", "high", "9" * 5000])
def test_an_interval_of_no_such_level_is_refused_in_one_line(predict, calibrated, level):
    result = predict(f"hands/a.png -s F --interval {level}", status=2, model=calibrated)
    assert result.stderr == (
        f"error: --interval {level}: choose a whole per cent from 50 to 99, such as 90\n"
    )


def test_a_level_may_be_written_with_its_sign(predict, calibrated):
    plain, signed = (
        predict(f"hands/a.png -s F --interval {level}", model=calibrated).stdout
        for level in ("95", "95%")
    )
    assert signed == plain
    assert " to " in signed


def test_the_age_of_a_child_gives_the_standard_deviation_score(predict):
    (row,) = rows(predict("hands/a.png --sex F --age 10y2m --format csv").stdout)
    assert float(row["age"]) == 122
    score = deviation_score(float(row["months"]), 122, male=False)
    assert float(row["sds"]) == pytest.approx(score, abs=0.006)
    assert row["reference"] == "Brush Foundation"
    assert f"SDS {score:+.1f} (Brush Foundation)" in predict("hands/a.png -s F --age 122").stdout


def test_the_dates_of_a_dicom_file_tell_the_age(predict, hands):
    as_dicom(hands / "hands" / "a.png", hands / "a.dcm", "F")
    dataset = dcmread(hands / "a.dcm")
    dataset.PatientBirthDate, dataset.StudyDate = "20100115", "20200115"
    dataset.save_as(hands / "a.dcm", enforce_file_format=True)
    (row,) = rows(predict("a.dcm -f csv").stdout)
    assert float(row["age"]) == pytest.approx(120, abs=0.1)
    assert row["sds"]


def test_a_file_whose_dates_contradict_its_stated_age_is_warned_of_with_both(predict, hands):
    as_dicom(hands / "hands" / "a.png", hands / "a.dcm", "F")
    dataset = dcmread(hands / "a.dcm")
    dataset.PatientBirthDate, dataset.StudyDate = "20100115", "20200115"
    dataset.PatientAge = "006Y"
    dataset.save_as(hands / "a.dcm", enforce_file_format=True)
    said = "age unknown: 120 months by the file's dates, but 72 by its PatientAge"
    result = predict("a.dcm -f csv")
    (row,) = rows(result.stdout)
    assert (row["age"], row["sds"]) == ("", "")
    assert row["warning"].startswith(said)
    assert f"warning: a.dcm: {said}" in result.stderr
    # All warnings of a row are given.
    (row,) = rows(predict("a.dcm -f csv --sex M").stdout)
    assert row["warning"].startswith(f"taken as M, but it says F; {said}")
    Path("told.csv").write_text("path,age_months\na.dcm,110\n")
    for line in ("a.dcm --age 110", "told.csv"):
        result = predict(f"{line} -f csv")
        (row,) = rows(result.stdout)
        assert (row["age"], row["warning"]) == ("110.0", "")
        assert "warning" not in result.stderr
    # A row without a bone age says, too, why it has no age.
    data = (hands / "a.dcm").read_bytes()
    (hands / "a.dcm").write_bytes(data[: len(data) // 2])
    (row,) = rows(predict("a.dcm -f csv", status=1).stdout)
    assert row["warning"].startswith(said)


def test_an_age_that_makes_no_sense_is_refused(predict):
    assert "'ten' is not an age" in predict("hands/a.png -s F --age ten", status=2).stderr


@pytest.mark.parametrize("age", ["-5", "2000y"])
def test_an_age_that_nobody_has_is_refused(predict, age):
    assert "nobody is" in predict(f"hands/a.png -s F --age={age}", status=2).stderr


def pictures(folder: str) -> dict[str, np.ndarray]:
    return {path.stem: cv2.imread(str(path)) for path in sorted(Path(folder).glob("*.png"))}


@pytest.fixture(params=["roi", "fusion"])
def region_bundle(request, tiny, tmp_path) -> str:
    """An untrained model of regions, without sex as an input."""
    values = tiny.model_dump(mode="json")
    values["model"] |= {"family": request.param, "gender": False}
    values["regions"] |= {"height": 64, "width": 64}
    experiment = parse_experiment(values, "test")
    network = build_network(experiment, 120, 40)
    save_bundle(Bundle(experiment, 120, 40, network.state_dict()), tmp_path / "regions.safetensors")
    return str(tmp_path / "regions.safetensors")


def test_each_predicted_radiograph_is_explained_by_a_picture_and_the_ages_stay(predict):
    line = "hands/a.png gone.png hands/c.png --sex M --format csv"
    plain = predict(line, status=1)
    result = predict(f"{line} --explain why", status=1)
    explained = rows(result.stdout)
    assert [row.pop("picture") for row in explained] == ["why/a.png", "", "why/c.png"]
    assert explained == rows(plain.stdout)
    assert "2 pictures: why" in result.stderr
    found = pictures("why")
    assert list(found) == ["a", "c"]
    drawn = cv2.imread("hands/a.png")
    height, width = found["a"].shape[:2]
    # The radiograph and its heat map are side by side.
    expected = 2 * drawn.shape[1] / drawn.shape[0]
    assert width / (height - 24) == pytest.approx(expected, abs=0.01)
    assert Path("why/README.txt").is_file()


def test_pictures_of_models_of_regions_show_the_regions(predict, region_bundle, demo_bundle):
    predict("hands/a.png --explain why", model=region_bundle)
    predict(f"hands/a.png --sex F --explain both --model {region_bundle}")
    for folder in ("why", "both"):
        (picture,) = pictures(folder).values()
        for colour in ((80, 220, 80), (60, 220, 250), (80, 80, 255)):
            assert (picture == colour).all(2).sum() > 50


def test_pictures_of_one_name_do_not_replace_each_other_but_those_of_an_earlier_call(predict):
    Path("more").mkdir()
    for name, source in (("a", "b"), ("a-2", "c")):
        Path(f"more/{name}.png").write_bytes(Path(f"hands/{source}.png").read_bytes())
    for _ in range(2):
        predict("hands/a.png more/a.png more/a-2.png --sex M --explain why")
        found = pictures("why")
        assert sorted(found) == ["a", "a-2", "a-2-2"]
        assert len({picture.tobytes() for picture in found.values()}) == 3


@pytest.mark.parametrize("style", ["csv", "json", "jsonl"])
def test_each_row_names_its_own_picture_where_names_repeat(predict, hands, style):
    # As in archives.
    for study, hand in (("s1", "a"), ("s2", "b")):
        Path(study).mkdir()
        as_dicom(hands / "hands" / f"{hand}.png", Path(study, "IM000001"), "F")
    line = f"s1 s2 --explain why -o ages.{style} --dicom-tags PatientSex"
    predict(line)
    text = Path(f"ages.{style}").read_text()
    found = {
        "csv": lambda: rows(text),
        "json": lambda: json.loads(text),
        "jsonl": lambda: [json.loads(each) for each in text.splitlines()],
    }[style]()
    assert [list(row)[-3:] for row in found] == [["warning", "picture", "PatientSex"]] * 2
    assert [row["picture"] for row in found] == ["why/IM000001.png", "why/IM000001-2.png"]
    for row in found:
        predict(f"{row['path']} --explain alone")
        assert Path(row["picture"]).read_bytes() == Path("alone/IM000001.png").read_bytes()
    first, second = pictures("why").values()
    assert (first != second).any()
    predict(f"s1 s2 -o plain.{style}")
    assert "picture" not in Path(f"plain.{style}").read_text()


def test_no_picture_but_its_own_is_removed_by_explain(predict):
    predict("hands/a.png --sex M --explain why")
    own = Path("why/own.png")
    own.write_bytes(Path("hands/a.png").read_bytes())
    predict("hands/b.png --sex M --explain why")
    assert sorted(path.name for path in Path("why").glob("*.png")) == ["b.png", "own.png"]


def test_pictures_of_files_named_by_their_uids_are_told_apart(predict, hands):
    for number in (7, 8):
        as_dicom(hands / "hands" / "a.png", Path(f"1.2.840.5.{number}"), "F")
    predict("1.2.840.5.7 1.2.840.5.8 --explain why")
    assert {path.name for path in Path("why").glob("*.png")} == {
        "1.2.840.5.7.png",
        "1.2.840.5.8.png",
    }


def test_a_folder_that_pictures_must_not_go_to_is_refused_in_one_line(predict):
    Path("file").write_text("kept")
    before = Path("hands/a.png").read_bytes()
    for arguments, reason in (
        ("hands/a.png --explain file", "file: cannot be written"),
        ("hands/a.png --explain file/why", "file/why: cannot be written"),
        ("hands/a.png --explain hands", "hands: holds files that --explain did not make"),
        ("hands --explain hands/why", "hands/why: lies in hands"),
    ):
        result = predict(f"{arguments} --sex M", status=2)
        assert result.stdout == ""
        assert reason in result.stderr
        assert result.stderr.count("\n") == 1
    assert Path("file").read_text() == "kept"
    assert Path("hands/a.png").read_bytes() == before


def test_pictures_of_explain_are_no_radiographs(predict):
    predict("hands/a.png --sex F --explain hands/why", status=0)
    assert [row["path"] for row in rows(predict("hands --sex F --format csv").stdout)] == [
        f"hands/{name}.png" for name in "abc"
    ]


def test_a_call_that_draws_nothing_leaves_the_pictures_of_an_earlier_one(predict):
    predict("hands/a.png hands/b.png --sex F --explain why")
    Path("broken.png").write_bytes(b"no image")
    predict("broken.png --sex F --explain why", status=1)
    assert sorted(path.name for path in Path("why").glob("*.png")) == ["a.png", "b.png"]
    predict("hands/b.png --sex F --explain why")
    assert [path.name for path in Path("why").glob("*.png")] == ["b.png"]


def test_a_forced_answer_that_is_in_doubt_has_no_interval(predict):
    cv2.imwrite("noise.png", np.random.default_rng(0).integers(0, 256, (320, 256), np.uint8))
    line = "noise.png --sex F --force --interval 90 --format csv"
    (row,) = rows(predict(line, model=None).stdout)
    assert row["reason"] == "no-hand"
    assert row["months"]
    assert (row["low"], row["high"]) == ("", "")


@pytest.mark.parametrize("age", ["9", "114 years"])
def test_an_age_far_from_the_bone_age_is_asked_about(predict, age):
    result = predict_of(age)
    assert "are those years instead of months" in " ".join(result.stderr.split())
    assert "is that years" not in predict_of("10y").stderr


def predict_of(age: str):
    words = ["predict", "hands/c.png", "--sex", "F", "--force", "--age", age]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    return result


def test_an_adult_s_age_is_a_warning_and_an_age_in_years_gives_no_score(predict):
    line = "hands/c.png --sex F --format csv --age"
    (adult,) = rows(predict(f"{line} 40y").stdout)
    assert adult["warning"].startswith("an age of 40 years")
    (years,) = rows(predict(f"{line} 9").stdout)
    assert "are those years instead of months" in years["warning"]
    assert (years["age"], years["sds"]) == ("9.0", "")
    (sound,) = rows(predict(f"{line} 10y").stdout)
    assert (sound["warning"], sound["reference"]) == ("", "Brush Foundation")


@pytest.fixture
def archive(hands) -> Path:
    """A folder as exported by archives: a radiograph, its report, and a damaged file."""
    (hands / "archive").mkdir()
    as_dicom(hands / "hands" / "a.png", hands / "archive" / "IM1", "F")
    dataset = dcmread(hands / "archive" / "IM1")
    dataset.AccessionNumber, dataset.PatientName = "A-17", "Doe^Jane"
    dataset.ImageType, dataset.ImageLaterality = ["ORIGINAL", "PRIMARY"], "R"
    dataset.save_as(hands / "archive" / "IM1", enforce_file_format=True)
    for name in ("Rows", "Columns", "PixelData"):
        delattr(dataset, name)
    dataset.SOPClassUID = BasicTextSRStorage
    dataset.save_as(hands / "archive" / "SR1", enforce_file_format=True)
    return hands / "archive"


def test_elements_of_dicom_files_become_columns(predict, archive):
    names = "AccessionNumber,PatientName,ImageType,StudyDate"
    (archive / "plain.png").symlink_to(archive.parent / "hands" / "b.png")
    result = predict(f"archive/IM1 archive/plain.png --sex F -f csv --dicom-tags {names}")
    dicom, png = rows(result.stdout)
    assert [*dicom][-4:] == names.split(",")
    assert [dicom[name] for name in names.split(",")] == [
        *("A-17", "Doe^Jane", "ORIGINAL\\PRIMARY", "")
    ]
    assert dicom["laterality"] == "R"
    assert [png[name] for name in names.split(",")] == [""] * 4
    found = json.loads(predict("archive/IM1 -f json --dicom-tags AccessionNumber").stdout)
    assert found[0]["AccessionNumber"] == "A-17"
    # What is empty is null.
    dataset = dcmread(archive / "IM1")
    dataset.AccessionNumber = ""
    dataset.save_as(archive / "IM1", enforce_file_format=True)
    found = json.loads(predict("archive/IM1 -f json --dicom-tags AccessionNumber").stdout)
    assert found[0]["AccessionNumber"] is None


def test_a_row_whose_image_cannot_be_read_still_says_whose_it_is(predict, archive):
    data = (archive / "IM1").read_bytes()
    (archive / "IM1").write_bytes(data[: len(data) // 2])
    (row,) = rows(predict("archive/IM1 -f csv --dicom-tags AccessionNumber", status=1).stdout)
    assert (row["reason"], row["months"]) == ("unreadable", "")
    assert (row["AccessionNumber"], row["sex"], row["laterality"]) == ("A-17", "F", "R")
    assert row["error"].startswith("the DICOM file is damaged or truncated")


def test_a_table_is_text_whatever_an_archive_pads_its_elements_with(predict, archive):
    dataset = dcmread(archive / "IM1")
    dataset.PatientComments = "left\0\0"
    dataset.save_as(archive / "IM1", enforce_file_format=True)
    for _ in range(2):
        predict("archive/IM1 -o ages.csv --dicom-tags PatientComments")
        assert rows(Path("ages.csv").read_text())[0]["PatientComments"] == "left"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("-f csv --dicom-tags AcessionNumber", "did you mean AccessionNumber?"),
        ("-f csv --dicom-tags patientid", "did you mean PatientID?"),
        ("-f csv --dicom-tags PixelData", "PixelData is no text, date or number"),
        ("--dicom-tags PatientID", "add --format csv"),
    ],
)
def test_elements_that_cannot_be_columns_are_refused(predict, archive, options, said):
    assert said in predict(f"archive/IM1 {options}", status=2).stderr


def test_reports_of_an_archive_are_left_out_and_fail_where_they_are_named(predict, archive):
    result = predict("archive -o ages.csv")
    assert "1 radiograph, 0 failed: ages.csv" in result.stderr
    assert "1 DICOM file without an image" in result.stderr
    assert [row["path"] for row in rows(Path("ages.csv").read_text())] == ["archive/IM1"]
    (row,) = rows(predict("archive/SR1 -f csv", status=1).stdout)
    (archive / "IM1").unlink()
    assert "archive: no radiograph in it" in predict("archive -o none.csv", status=2).stderr
    assert not list(Path().glob("*none.csv*"))
    assert row["reason"] == "no-image"


def test_every_failure_has_a_code_and_the_end_says_how_many_of_each(predict, archive):
    (archive / "damaged.png").write_bytes(b"no image")
    cv2.imwrite("archive/black.png", np.zeros((300, 240), np.uint8))
    Path("list.csv").write_text(
        "path,sex\narchive/IM1,\narchive/damaged.png,F\narchive/black.png,F\n"
        "hands/b.png,X\nhands/c.png,\ngone.png,M\n"
    )
    result = predict("list.csv -o ages.csv", status=1)
    found = {row["path"]: row["reason"] for row in rows(Path("ages.csv").read_text())}
    assert found == {
        "archive/IM1": "",
        "archive/damaged.png": "unreadable",
        "archive/black.png": "no-hand",
        "hands/b.png": "bad-input",
        "hands/c.png": "sex-unknown",
        "gone.png": "unreadable",
    }
    assert set(found.values()) - {""} <= {*REASONS, *FAILURES}
    ending = "5 failed (2 unreadable, 1 no-hand, 1 bad-input, 1 sex-unknown): ages.csv"
    assert f"6 radiographs, {ending}" in result.stderr


def test_json_lines_are_an_object_a_line(predict):
    predict("hands gone.png --sex F -o ages.jsonl", status=1)
    found = [json.loads(line) for line in Path("ages.jsonl").read_text().splitlines()]
    assert [Path(row["path"]).name for row in found] == ["a.png", "b.png", "c.png", "gone.png"]
    assert all(row["months"] > 0 for row in found[:3])
    assert found[3]["reason"] == "unreadable"


def test_no_bone_is_younger_than_a_newborn_s(predict, demo_bundle, tmp_path):
    bundle = load_bundle(demo_bundle)
    young = replace(bundle, correction={"F": (-500.0, 1.0), "M": (-500.0, 1.0)}, calibration=None)
    save_bundle(young, tmp_path / "young.safetensors")
    result = predict("hands/a.png --sex F", model=str(tmp_path / "young.safetensors"))
    assert result.stdout == "hands/a.png: 0 years 0 months (0.0 months)\n"


def test_a_data_set_s_folder_whose_images_were_squashed_is_warned_of(predict):
    Path("set/test").mkdir(parents=True)
    Path("set/test/a.png").symlink_to(Path("hands/a.png").resolve())
    assert "proportions" not in predict("set/test --sex F").stderr
    Path("set/test.csv").write_text("id,path,male,width,height\na,test/a.png,False,300,900\n")
    told = " ".join(predict("set/test --sex F").stderr.split())
    assert "those of the originals are in set/test.csv, name that instead" in told
    assert "proportions" not in predict("set/test.csv").stderr


def test_the_age_that_is_told_of_a_child_comes_before_that_of_its_file(predict, hands):
    as_dicom(hands / "hands" / "a.png", hands / "a.dcm", "F")
    dataset = dcmread(hands / "a.dcm")
    dataset.PatientAge = "010Y"
    dataset.save_as(hands / "a.dcm", enforce_file_format=True)
    Path("row.csv").write_text("path,age_months\na.dcm,60\n")
    lines = {"a.dcm": 120, "a.dcm --age 8y": 96, "row.csv": 60, "row.csv --age 8y": 60}
    for line, age in lines.items():
        (row,) = rows(predict(f"{line} -f csv").stdout)
        assert float(row["age"]) == age, line


def test_a_picture_that_cannot_be_drawn_is_told_of_and_the_status_is_1(hands, demo_bundle):
    # The last radiograph's age is predicted with its batch, long before its picture is drawn.
    Path("last.png").write_bytes(Path("hands/a.png").read_bytes())
    Path("list.txt").write_text("hands/b.png\n" * 30 + "last.png\n")
    line = f"predict list.txt --sex M --model {demo_bundle} --device cpu --explain why -f jsonl"
    with subprocess.Popen(
        [sys.executable, "-u", "-m", "boneage_cli", *line.split()],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        first = process.stdout.readline()
        Path("last.png").unlink()
        lines = [first, *process.stdout]
        told = process.stderr.read()
    found = [json.loads(each) for each in lines]
    assert len(found) == 31
    assert all(row["months"] for row in found)
    # Neither is an earlier radiograph's picture promised to the last one.
    assert [row["picture"] for row in found if row["path"] == "last.png"] == [None]
    assert all(Path(row["picture"]).is_file() for row in found[:-1])
    assert "last.png: no such file" in told
    assert "30 pictures: why" in told
    assert process.returncode == 1


def test_a_table_of_the_user_s_own_is_not_replaced(predict):
    Path("labels.csv").write_text("id,boneage,male\na,126,True\n")
    result = predict("hands --sex M --format csv --output labels.csv", status=2)
    assert "labels.csv: is there already and was not written by this command" in result.stderr
    assert Path("labels.csv").read_text() == "id,boneage,male\na,126,True\n"
    for _ in range(2):
        predict("hands --sex M --format csv --output ages.csv")
