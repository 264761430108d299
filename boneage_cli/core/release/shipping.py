"""Makes the model that is included in the package from a finished run."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from boneage_cli.core.bundle import Bundle, averaged, load_bundle, save_bundle
from boneage_cli.core.conversion_cache import ship_graphs
from boneage_cli.core.evaluation.ages import Evaluation
from boneage_cli.core.evaluation.measuring import measure
from boneage_cli.core.hardware import cpu_has_bf16
from boneage_cli.core.intervals import calibration_of, coverage, random_parts
from boneage_cli.core.landmarks import landmark_graph
from boneage_cli.core.mixed_precision import MIXED_PRECISION
from boneage_cli.core.prediction.predictor import Predictor
from boneage_cli.core.release.card import model_card
from boneage_cli.core.runs import BUNDLE, SHIPPED_MODEL
from boneage_cli.core.training.outcome import learn_likeness
from boneage_cli.core.training.run_folder import check_data, data_of, read_run
from boneage_cli.core.training.run_result import RunResult
from boneage_cli.datasets.manifest import read_manifest
from boneage_cli.datasets.source import read_source
from boneage_cli.errors import BoneageError
from boneage_cli.files import whole_file

if TYPE_CHECKING:
    import pandas as pd

# Largest mean and maximum change of ages, months, at which a model uses mixed precision by default.
MEAN_MOVED, MOST_MOVED = 0.05, 0.3

WEAKNESSES = (
    "The data include few children under five years, so the figures for them rest on few "
    "radiographs.",
    "The training radiographs come from two hospitals; equipment and children elsewhere may "
    "differ.",
    "Noise, severe underexposure and strong JPEG compression increase the errors: "
    "docs/experiments.md gives the figures.",
    "Skeletal disease, implants, casts and old fractures were not evaluated separately.",
)


def ship(
    run: Path,
    path: Path = SHIPPED_MODEL,
    data_name: str | None = None,
    blend: float = 1.0,
    beside: Path | None = None,
) -> None:
    """Makes the package's model and its model card from a finished run.

    Weights are stored as 16-bit floats. All metrics are recomputed with the written file, on the
    validation split, with the code that predict uses.

    Args:
        run: The run folder; its data set must still exist.
        path: The model file; the card has the same name with the suffix .md.
        data_name: Name of the data in the card; None for the name in the run.
        blend: Share of the run's weights; the rest is that of its last earlier stage
            (Wortsman et al. 2022, arXiv:2109.01903: robust fine-tuning without loss on the old).
        beside: Another model with the same views and held-out radiographs, whose ages are averaged
            with the run's; its out-of-distribution limits decide which images are refused.

    Raises:
        BoneageError: The models to be blended or averaged do not match.
    """
    record, experiment = read_run(run)
    data = data_of(record, experiment)
    check_data(run, record, data)
    data.setup()
    source = read_source(data.folder)
    with TemporaryDirectory() as folder:
        # The package's files are replaced only after everything is evaluated.
        made = Path(folder, path.name)
        trained = load_bundle(run / BUNDLE)
        if blend < 1:
            if not experiment.stages:
                raise BoneageError("--blend: the run has no earlier stage; leave --blend out")
            if experiment.training.anew:
                raise BoneageError("--blend: the last stage continues no other; leave --blend out")
            before = load_bundle(run / f"stage-{len(experiment.stages)}" / BUNDLE)
            trained = blended(before, trained, blend)
        # Only the file's name: the bundle must not reveal a local path.
        weights = Path(experiment.model.weights).name
        model = experiment.model.model_copy(update={"weights": weights})
        experiment = experiment.model_copy(update={"model": model})
        about = {
            "data": data_name or trained.provenance["data"],
            "blend": blend,
            "seconds": RunResult.read(run).seconds,
            "validation": source.validation if source else None,
            "terms": source.terms if source else None,
            "citation": source.citation if source else None,
        }
        trained = replace(trained, experiment=experiment, provenance=trained.provenance | about)
        if beside is not None:
            trained = averaged([load_bundle(beside), trained])
        save_bundle(trained, made, half=True)
        if beside is None:
            likeness = learn_likeness(made, data, experiment)
            save_bundle(replace(load_bundle(made), likeness=likeness), made, half=True)
        save_bundle(_measured(made, data.validation_manifest, data.train_manifest), made, half=True)
        card = model_card(load_bundle(made), WEAKNESSES)
        with whole_file(path) as temporary:
            shutil.copyfile(made, temporary)
    with whole_file(path.with_suffix(".md")) as temporary:
        temporary.write_text(card, encoding="utf-8")


def measure_again(data: Path, path: Path = SHIPPED_MODEL) -> None:
    """Recomputes all metrics of a model after a change of the code, and writes its card.

    Args:
        data: The data set whose validation split the model was not trained on.
        path: The model; its weights do not change.
    """
    measured = _measured(path, read_manifest(data, "validation"), read_manifest(data, "train"))
    save_bundle(measured, path, half=True)
    with whole_file(path.with_suffix(".md")) as temporary:
        temporary.write_text(model_card(load_bundle(path), WEAKNESSES), encoding="utf-8")


def _measured(path: Path, held_out: pd.DataFrame, train: pd.DataFrame) -> Bundle:
    """Returns a bundle with metrics and intervals from radiographs it was not trained on."""
    evaluation = _ages(
        Predictor.load([path], device="cpu", precision="32"),
        held_out,
        baseline=float(train["boneage"].mean()),
    )
    bundle = load_bundle(path)
    parts = random_parts(len(evaluation.predictions))
    return replace(
        bundle,
        calibration=calibration_of(evaluation.predictions, " of the validation split"),
        metrics={
            "validation": evaluation.to_dict(),
            "coverage_90": coverage(evaluation.predictions, parts, 90),
            **_moved_by_mixed_precision(path, bundle, evaluation, held_out),
        },
    )


def _ages(
    predictor: Predictor, manifest: pd.DataFrame, baseline: float | None = None
) -> Evaluation:
    predictor.check_age("shipping")
    found = measure(predictor, manifest, baseline=baseline).ages
    assert found is not None
    return found


def _moved_by_mixed_precision(
    path: Path, bundle: Bundle, evaluation: Evaluation, manifest: pd.DataFrame
) -> dict[str, Any]:
    """Change of ages in mixed precision, if small; the stored value on CPUs without bf16."""
    if not cpu_has_bf16():
        return {name: each for name, each in bundle.metrics.items() if name == MIXED_PRECISION}
    coarse = _ages(Predictor.load([path], device="cpu", precision="mixed"), manifest)
    moved = (coarse.predictions["predicted"] - evaluation.predictions["predicted"]).abs()
    figures = {"images": len(moved), "mean": float(moved.mean()), "max": float(moved.max())}
    little = figures["mean"] <= MEAN_MOVED and figures["max"] <= MOST_MOVED
    return {MIXED_PRECISION: figures} if little else {}


def blended(before: Bundle, after: Bundle, share: float) -> Bundle:
    """Returns the second model with the weights ``share`` · second + (1 − ``share``) · first.

    Raises:
        BoneageError: The networks differ.
    """
    if before.weights.keys() != after.weights.keys():
        raise BoneageError("--blend: the stage before has another network; leave --blend out")
    weights = {
        name: before.weights[name].float().lerp(value.float(), share)
        if value.is_floating_point()
        else value
        for name, value in after.weights.items()
    }
    return replace(after, weights=weights)


def convert() -> None:
    """Converts the package's model and key-point network for OpenVINO; removes other graphs."""
    ship_graphs([load_bundle(SHIPPED_MODEL).graph(), landmark_graph()[0]])
