"""Fingerprints of radiographs, by which a model file knows those that it was trained on.

They are hashes of the id with the age and of the id with the sex, because other data sets may use
the same ids. With 32 bits, about one in 200,000 other radiographs is mistaken for one of a training
with 11,000.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from boneage_cli.datasets.manifest import sex_letters

if TYPE_CHECKING:
    import pandas as pd

Fingerprints = NDArray[np.int32]


def fingerprints(manifest: pd.DataFrame) -> Fingerprints:
    """Returns those of the radiographs of a training, sorted, at most two of each."""
    by_age, by_sex = _with_age(manifest), _with_sex(manifest)
    return np.unique(_hashed([text for text in (*by_age, *by_sex) if text is not None]))


def all_of(trainings: Sequence[Fingerprints | None]) -> Fingerprints | None:
    """Returns those of all trainings; None if none is known."""
    known = [each for each in trainings if each is not None]
    return np.unique(np.concatenate(known)) if known else None


def is_among(manifest: pd.DataFrame, trained_on: Fingerprints) -> NDArray[np.bool_]:
    """Whether each radiograph is one of a training.

    Args:
        manifest: The n radiographs; without a known age they are recognised by the sex.
        trained_on: The result of ``fingerprints``.

    Returns:
        bool (n,).
    """
    pairs = zip(_with_age(manifest), _with_sex(manifest), strict=True)
    found: NDArray[np.bool_] = np.isin(
        _hashed([by_age or by_sex or "" for by_age, by_sex in pairs]), trained_on
    )
    return found


def _with_age(manifest: pd.DataFrame) -> list[str | None]:
    ages = manifest["boneage"].to_numpy(float)
    pairs = zip(manifest["id"], ages, strict=True)
    return [f"{name} {age:.1f}" if np.isfinite(age) else None for name, age in pairs]


def _with_sex(manifest: pd.DataFrame) -> list[str | None]:
    pairs = zip(manifest["id"], sex_letters(manifest), strict=True)
    return [None if sex is None else f"{name} {sex}" for name, sex in pairs]


def _hashed(texts: Sequence[str]) -> Fingerprints:
    digests = (hashlib.sha256(text.encode(errors="surrogateescape")).digest()[:4] for text in texts)
    return np.array([int.from_bytes(digest, "little", signed=True) for digest in digests], np.int32)
