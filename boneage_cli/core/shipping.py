"""The model that the package carries, and how it is made of a training.

``python -m boneage_cli.core.shipping RUN`` makes it of the run folder of ``configs/rsna.toml``.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from boneage_cli.core.bundle import load_bundle, save_bundle
from boneage_cli.core.card import model_card
from boneage_cli.core.config import load_experiment
from boneage_cli.core.datamodule import BoneAgeData
from boneage_cli.core.evaluation import evaluate
from boneage_cli.core.intervals import coverage, random_parts
from boneage_cli.core.prediction import Predictor
from boneage_cli.core.runs import BUNDLE, RECORD, RESULT, SETTINGS, SHIPPED_MODEL, read_json
from boneage_cli.core.training import calibration_of, learn_likeness
from boneage_cli.datasets.source import RSNA_CITATION, RSNA_TERMS
from boneage_cli.files import whole_file

WEAKNESSES = (
    "Few children under five years are in the data, and the errors there rest on few radiographs.",
    "Its training radiographs come from two hospitals; films, detectors and children elsewhere "
    "may differ.",
    "Disease of the skeleton, implants, casts and old fractures were not looked at separately.",
)


def ship(run: Path, path: Path = SHIPPED_MODEL) -> None:
    """Makes the package's model, and its card beside it, of a finished run.

    Weights become 16-bit floats. All figures are measured anew with the file that is written, on
    the validation split, along the path that predict takes.

    Args:
        run: The run folder; its data set must still be there.
        path: The file; the card has the ending .md.
    """
    experiment = load_experiment(run / SETTINGS)
    record, result = read_json(run / RECORD), read_json(run / RESULT)
    data = BoneAgeData(Path(record["data"]), experiment)
    data.setup()
    bundle = replace(
        load_bundle(run / BUNDLE), likeness=learn_likeness(run / BUNDLE, data, experiment)
    )
    save_bundle(bundle, path, half=True)
    evaluation = evaluate(
        Predictor.load([path], precision="32"),
        data.validation_manifest,
        yardstick=float(data.train_manifest["boneage"].mean()),
    )
    parts = random_parts(len(evaluation.predictions))
    measured = replace(
        load_bundle(path),
        calibration=calibration_of(evaluation),
        metrics={
            "validation": evaluation.to_dict(),
            "coverage_90": coverage(evaluation.predictions, parts, 90),
        },
        provenance=bundle.provenance
        | {
            "seconds": result["seconds"],
            "data": "RSNA Pediatric Bone Age Challenge 2017, training set, 299 × 299 pixels",
            "terms": RSNA_TERMS,
            "citation": RSNA_CITATION,
        },
    )
    save_bundle(measured, path, half=True)
    with whole_file(path.with_suffix(".md")) as temporary:
        card = model_card(load_bundle(path), WEAKNESSES)
        temporary.write_text(card, encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=ship.__doc__)
    parser.add_argument("run", type=Path)
    ship(parser.parse_args().run)
