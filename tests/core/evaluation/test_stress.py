"""Promises about the figures of a model on perturbed radiographs."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from boneage_cli.core.evaluation.measuring import measure
from boneage_cli.core.evaluation.metrics import mean_interval
from boneage_cli.core.evaluation.stress import Stress, StressRow, stress, write_stress
from boneage_cli.core.prediction.predictor import Predictor
from boneage_cli.datasets.manifest import read_manifest
from boneage_cli.errors import BoneageError
from boneage_cli.imaging.perturbation_catalogue import PERTURBATIONS, Perturbation
from boneage_cli.imaging.perturbations import brighten, mirror
from boneage_cli.imaging.radiograph import Radiograph
from boneage_cli.imaging.reading import ReadError, read_radiograph

FIRST = "drawn-0081"


def refuse_all(radiograph: Radiograph) -> Radiograph:
    raise ReadError(f"{radiograph.source}: not today")


def refuse_first(radiograph: Radiograph) -> Radiograph:
    return refuse_all(radiograph) if Path(radiograph.source).stem == FIRST else mirror(radiograph)


def spare_first(radiograph: Radiograph) -> Radiograph:
    return radiograph if Path(radiograph.source).stem == FIRST else mirror(radiograph)


MIRRORED = Perturbation("mirrored", "pose", "Left and right exchanged.", mirror)
BRIGHTER = Perturbation("brighter", "exposure", "Brighter.", lambda image: brighten(image, 0.2))
AS_IT_WAS = Perturbation("as it was", "frame", "Nothing is done.", lambda image: image)
REFUSED = Perturbation("refused", "file", "Nobody can read it.", refuse_all)
FIRST_REFUSED = Perturbation("one refused", "file", "One cannot be read.", refuse_first)
FIRST_SPARED = Perturbation("one spared", "pose", "One stays as it is.", spare_first)


@pytest.fixture(scope="module")
def predictor(demo_bundle) -> Predictor:
    return Predictor.load([demo_bundle], device="cpu")


@pytest.fixture(scope="module")
def manifest(demo_data) -> pd.DataFrame:
    """Six drawn hands, with the first that ``FIRST`` names."""
    rows = read_manifest(demo_data, "test").head(6)
    assert rows["id"].iloc[0] == FIRST
    return rows


@pytest.fixture(scope="module")
def found(predictor, manifest) -> Stress:
    perturbations = [MIRRORED, BRIGHTER, AS_IT_WAS, REFUSED, FIRST_REFUSED, FIRST_SPARED]
    return stress(
        predictor, manifest, perturbations=perturbations, batch_size=4, about={"split": "test"}
    )


def row(found: Stress, name: str) -> StressRow:
    return next(row for row in found.rows if row.name == name)


@pytest.mark.parametrize("name", ["mirrored", "brighter", "one refused", "one spared"])
def test_the_figures_follow_from_the_predictions(found, name):
    table = found.predictions[found.predictions[name].notna()]
    plain, perturbed, true = table["unperturbed"], table[name], table["true"]
    figures = row(found, name)
    assert figures.images == len(table)
    assert figures.mae == mean_interval((perturbed - true).abs())
    assert figures.mae_increase == mean_interval((perturbed - true).abs() - (plain - true).abs())
    assert figures.change == pytest.approx((perturbed - plain).abs().mean())
    assert figures.shift == pytest.approx((perturbed - plain).mean())
    assert figures.change > 0


def test_the_predictions_are_those_of_the_perturbed_radiographs(predictor, manifest, found):
    table = found.predictions
    assert table["image_id"].tolist() == manifest["id"].tolist()
    assert table["true"].tolist() == manifest["boneage"].tolist()
    radiographs = [read_radiograph(path) for path in manifest["path"]]
    for name, change in (("unperturbed", lambda image: image), ("mirrored", mirror)):
        months = predictor.predict([change(image) for image in radiographs], manifest["male"])
        np.testing.assert_allclose(table[name], months, atol=1e-3)


def test_radiographs_as_they_are_get_the_months_of_evaluate(predictor, manifest):
    # These were squashed to half of their width; another aspect gives other months.
    squashed = manifest.assign(width=512, height=320)
    months = stress(predictor, squashed, perturbations=[]).predictions["unperturbed"]
    evaluated = measure(predictor, squashed).ages.predictions["predicted"]
    np.testing.assert_allclose(months, evaluated, atol=1e-3)
    plain = measure(predictor, manifest).ages.predictions["predicted"]
    assert (plain - evaluated).abs().max() > 0.01


def test_the_radiographs_as_they_are_come_first_and_lose_nothing(found):
    plain = found.unperturbed
    assert plain is found.rows[0]
    assert plain.name == "unperturbed"
    assert (
        plain.mae_increase.low,
        plain.mae_increase.value,
        plain.mae_increase.high,
        plain.change,
    ) == (0, 0, 0, 0)


def test_what_was_left_as_it_was_is_counted(found):
    assert row(found, "as it was").unchanged == row(found, "as it was").images == 6
    assert row(found, "as it was").change == 0
    assert row(found, "one spared").unchanged == 1
    assert row(found, "mirrored").unchanged == 0
    names = [row.name for row in found.perturbed]
    assert names == ["mirrored", "brighter", "one refused", "one spared"]


def test_what_failed_is_counted_with_a_reason_and_is_in_no_figure(found, manifest):
    assert row(found, "one refused").images == 5
    assert row(found, "one refused").failed == 1
    # No radiograph is left to tell anything of.
    assert "refused" not in [row.name for row in found.rows]
    assert found.failed == {"refused": 6, "one refused": 1}
    reason = f"{manifest['path'].iloc[0]}: not today"
    assert found.errors == {"refused": reason, "one refused": reason}
    assert found.predictions["refused"].isna().all()


def test_a_file_that_cannot_be_read_is_no_failure_of_a_perturbation(predictor, manifest):
    broken = manifest.assign(path=["missing.png", *manifest["path"].iloc[1:]])
    found = stress(predictor, broken, perturbations=[MIRRORED])
    assert found.failed == {}
    assert "missing.png" in found.errors["unperturbed"]
    assert [row.images for row in found.rows] == [5, 5]
    assert row(found, "mirrored").failed == 0


def test_a_manifest_of_which_nothing_can_be_read_is_refused(predictor, manifest):
    with pytest.raises(BoneageError, match=r"none of 6 .*missing\.png"):
        stress(predictor, manifest.assign(path="missing.png"), perturbations=[MIRRORED])


def test_radiographs_of_unknown_age_are_left_out(predictor, manifest):
    unknown = manifest.assign(boneage=[np.nan, *manifest["boneage"].iloc[1:]])
    found = stress(predictor, unknown, perturbations=[MIRRORED])
    assert found.predictions["image_id"].tolist() == manifest["id"].tolist()[1:]


def test_workers_and_batches_change_no_figure(predictor, manifest):
    tables = [
        stress(predictor, manifest.head(2), batch_size=size, workers=workers).predictions
        for size, workers in ((1, 1), (32, 3))
    ]
    assert list(tables[0]) == ["image_id", "true", "unperturbed", *(p.name for p in PERTURBATIONS)]
    pd.testing.assert_frame_equal(*tables, atol=1e-3)


def test_the_figures_are_written_as_a_table_a_document_and_a_plot(found, tmp_path):
    files = write_stress(found, tmp_path / "new", "demo")
    assert [file.name for file in files] == ["stress.json", "stress.csv", "stress.png"]
    # Nothing half written lies beside them.
    assert sorted((tmp_path / "new").iterdir()) == sorted(files)
    table = pd.read_csv(files[1]).set_index("name")
    document = json.loads(files[0].read_text())
    assert document["split"] == "test"
    assert document["errors"] == found.errors
    assert list(table.index) == [row["name"] for row in document["perturbations"]]
    for figures in document["perturbations"]:
        written = table.loc[figures["name"]]
        assert written["what"] == row(found, figures["name"]).what
        for name in ("mae", "mae_increase"):
            ends = written[[name, f"{name}_low", f"{name}_high"]].tolist()
            assert ends == pytest.approx(list(figures[name].values()), abs=1e-4)
    assert cv2.imread(str(files[2])) is not None
    assert "-0.0," not in files[0].read_text()


def test_figures_of_nothing_but_the_radiographs_as_they_are_can_be_written(
    predictor, manifest, tmp_path
):
    found = stress(predictor, manifest.head(1), perturbations=[REFUSED, AS_IT_WAS])
    write_stress(found, tmp_path)
    assert pd.read_csv(tmp_path / "stress.csv")["name"].tolist() == ["unperturbed", "as it was"]
