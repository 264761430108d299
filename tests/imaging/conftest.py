"""Fixtures: drawn radiographs and DICOM files that contain them."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian, generate_uid

from boneage_cli.datasets.drawn_hands import DrawnHand, draw_hand


@pytest.fixture(scope="session")
def drawn_hand() -> DrawnHand:
    """A left hand with a bone age of ten years, 320 × 256 pixels, 8 bits."""
    return draw_hand(120, True, np.random.default_rng(4))


@pytest.fixture(scope="session")
def hand_pixels(drawn_hand: DrawnHand) -> np.ndarray:
    return drawn_hand.pixels


@pytest.fixture(scope="session")
def as_dicom() -> Callable[..., bytes]:
    """Makes Computed Radiography files from pixels or from a compressed stream of them."""

    def wrap(
        pixels: np.ndarray,
        *,
        syntax: str = ExplicitVRLittleEndian,
        stream: bytes | None = None,
        **elements: Any,
    ) -> bytes:
        dataset = Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset.SOPClassUID = ComputedRadiographyImageStorage
        dataset.SOPInstanceUID = generate_uid(entropy_srcs=["test"])
        dataset.Modality = "CR"
        dataset.Rows, dataset.Columns = pixels.shape[:2]
        dataset.SamplesPerPixel = 1
        dataset.PhotometricInterpretation = "MONOCHROME2"
        bits = pixels.dtype.itemsize * 8
        dataset.BitsAllocated = bits
        dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
        dataset.BitsStored = elements.get("BitsStored", bits)
        dataset.HighBit = dataset.BitsStored - 1
        for name, value in elements.items():
            if isinstance(value, DataElement):
                dataset.add(value)
            else:
                setattr(dataset, name, value)
        if stream is not None:
            dataset.PixelData = encapsulate([stream])
            dataset["PixelData"].VR = "OB"
        else:
            dataset.PixelData = pixels.tobytes() + b"\0" * (pixels.nbytes % 2)
            dataset["PixelData"].VR = "OB" if bits == 8 else "OW"
        file = io.BytesIO()
        dataset.save_as(file, enforce_file_format=True)
        return file.getvalue()

    return wrap
