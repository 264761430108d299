"""Knowledge distillation: a teacher's predicted ages are mixed into the training target."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd

from boneage_cli.core.bundle import load_bundle
from boneage_cli.core.prediction.predictor import Predictor
from boneage_cli.core.training.datamodule import BoneAgeData
from boneage_cli.csv_files import write_csv
from boneage_cli.progress import track

_TAUGHT_AT_A_TIME = 256


def teach(datamodule: BoneAgeData, bundle: Path, share: float, kept: Path, device: str) -> None:
    """Mixes a teacher's ages into the training target (Hinton et al. 2015, arXiv:1503.02531).

    Human readings of one radiograph differ by half a year; a teacher's predictions for the same
    radiographs, without augmentation, are less noisy.

    Args:
        datamodule: The radiographs.
        bundle: The teacher.
        share: The teacher's share of the target.
        kept: CSV file that stores the teacher's ages, so that a resumed run uses the same.
        device: The device of the teacher, ``cuda`` or ``cpu``.
    """
    datamodule.prepare_data()
    manifest = datamodule.train_manifest
    if not kept.exists():
        shown = datamodule.train_batches_of(load_bundle(bundle).experiment)
        predictor = Predictor.load([bundle], device)
        parts = np.array_split(np.arange(len(shown)), math.ceil(len(shown) / _TAUGHT_AT_A_TIME))

        def months_of(part: np.ndarray) -> np.ndarray:
            sexes = shown.male[part].numpy()
            return predictor.predict_pixels(lambda rows: shown.pixels(part[rows]), sexes).months

        found = track(
            map(months_of, parts), description="ask the teacher", total=len(parts), unit="batch"
        )
        months = np.concatenate(list(found))
        write_csv(pd.DataFrame({"id": manifest["id"], "months": months}), kept)
    table = pd.read_csv(kept, encoding_errors="surrogateescape")
    months = np.array(table["months"], dtype=float)
    datamodule.batches["train"].teach(months, share)
