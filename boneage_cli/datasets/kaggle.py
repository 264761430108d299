"""Downloads the two RSNA data sets on Kaggle with kagglehub."""

from __future__ import annotations

from pathlib import Path

from boneage_cli.datasets.fetching import Fetched, already_there, fetching
from boneage_cli.datasets.local import build_dataset
from boneage_cli.datasets.rsna_terms import RSNA_CITATION, RSNA_TERMS
from boneage_cli.datasets.source import Source
from boneage_cli.errors import BoneageError

HANDLES = {"kmader": "kmader/rsna-bone-age", "ipythonx": "ipythonx/rsna-bone-age"}

_LOG_IN = (
    "on kaggle.com accept the data set's terms and, under Settings > API, create a token; save it "
    "as ~/.kaggle/kaggle.json or set KAGGLE_USERNAME and KAGGLE_KEY, then run the same command "
    "again"
)


def fetch_kaggle(
    folder: Path,
    *,
    uploader: str = "kmader",
    copy: bool = False,
    validation_fraction: float = 0.1,
    seed: int = 0,
    force: bool = False,
) -> Fetched:
    """Downloads a data set from Kaggle and converts it to this package's layout.

    Args:
        folder: The data set's folder.
        uploader: A key of ``HANDLES``: kmader (training and unlabelled test radiographs) or
            ipythonx (training, validation and test radiographs).
        copy: Copies the radiographs out of kagglehub's cache instead of linking to it.
        validation_fraction: See ``fetch_local``; for data sets without a validation split.
        seed: See ``fetch_local``.
        force: Replaces an earlier data set in the folder.

    Returns:
        The data set.

    Raises:
        BoneageError: Kaggle refuses or cannot be reached; or as for ``fetch_local``.
    """
    handle = HANDLES[uploader]
    wanted = Source(
        name="kaggle",
        requested=handle,
        options={"copy": copy, "validation_fraction": validation_fraction, "seed": seed},
        terms=RSNA_TERMS,
        citation=RSNA_CITATION,
    )
    with fetching(folder, wanted, force=force) as earlier:
        there = already_there(folder, earlier)
        return there or build_dataset([_download(handle)], folder, wanted, earlier)


def _download(handle: str) -> Path:
    try:
        import kagglehub
        import requests
        from kagglehub.exceptions import (
            CredentialError,
            DataCorruptionError,
            KaggleApiHTTPError,
            UnauthenticatedError,
        )
    except ImportError as error:
        raise BoneageError(f"kagglehub is missing ({error}); pip install kagglehub") from None
    try:
        return Path(kagglehub.dataset_download(handle))
    except (UnauthenticatedError, CredentialError):
        raise BoneageError(f"Kaggle wants a log-in for {handle}: {_LOG_IN}") from None
    except KaggleApiHTTPError as error:
        status = error.response.status_code if error.response is not None else None
        if status in (401, 403):
            raise BoneageError(
                f"Kaggle wants a log-in for {handle} (HTTP {status}): {_LOG_IN}"
            ) from None
        raise BoneageError(f"Kaggle: {handle}: HTTP {status}; try again later") from None
    except requests.exceptions.RequestException as error:
        raise BoneageError(
            f"Kaggle could not be reached for {handle} ({type(error).__name__}); check the "
            "network, then run the same command again"
        ) from None
    except DataCorruptionError:
        raise BoneageError(
            f"Kaggle: {handle}: the download was damaged; run the same command again"
        ) from None
    except ValueError as error:
        # Raised by kagglehub for a kaggle.json that is not JSON or lacks a key.
        raise BoneageError(f"Kaggle: {error}; {_LOG_IN}") from None
