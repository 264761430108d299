"""From the stored pixels of a DICOM file to the picture that it is meant to show (PS3.3)."""

from __future__ import annotations

import cv2
import numpy as np
from pydicom.dataset import Dataset

from boneage_cli.imaging.depth import estimate_white
from boneage_cli.imaging.dicom_elements import DicomError, numbers_of, text_of, value_of


def displayed(dataset: Dataset, stored: np.ndarray) -> tuple[np.ndarray, int]:
    """Applies the rescale, the window or LUT, and the inversion of MONOCHROME1 to stored pixels.

    Args:
        dataset: The file's elements.
        stored: The stored pixels, (h, w), or (h, w, 3) in colour.

    Returns:
        White bone on black, uint8 (if 8 or fewer bits are stored) or uint16, (h, w); and the
        intensity of full white.

    Raises:
        DicomError: All pixels have one value.
        ValueError: A LUT or the window's function violates the standard.
    """
    stored = stored.astype(stored.dtype.newbyteorder("="), copy=False)
    if stored.ndim == 3:
        pixels = cv2.cvtColor(stored, cv2.COLOR_RGB2GRAY)
        return pixels, estimate_white(pixels)
    bits = int(dataset.BitsStored)
    if bits <= 8 and stored.dtype == np.uint16:
        stored = stored.astype(np.uint8)
    padding = _padding(dataset, stored)
    # Padding must not influence the range of intensities.
    used = stored if padding is None or padding.all() else stored[~padding]
    inverted = text_of(dataset, "PhotometricInterpretation") == "MONOCHROME1"
    if _shown_as_stored(dataset):
        white = 255 if bits <= 8 else estimate_white(used) if bits == 16 else 2**bits - 1
        pixels = np.minimum(stored, stored.dtype.type(white))
        if inverted:
            pixels = stored.dtype.type(white) - pixels
    else:
        white = 255 if bits <= 8 else 65535
        kind = np.iinfo(stored.dtype)
        values = np.arange(kind.min, kind.max + 1)
        shares = _brightness(dataset, values, used)
        table = np.rint((1 - shares if inverted else shares) * white)
        table = table.astype(np.uint8 if bits <= 8 else np.uint16)
        pixels = table[stored if kind.min == 0 else stored.astype(np.int32) - kind.min]
    if padding is not None:
        pixels[padding] = 0
    return pixels, white


def _padding(dataset: Dataset, stored: np.ndarray) -> np.ndarray | None:
    """Returns the mask of padding pixels; None if the file states no padding value."""
    ends = numbers_of(dataset, "PixelPaddingValue")[:1]
    if not ends:
        return None
    ends += numbers_of(dataset, "PixelPaddingRangeLimit")[:1]
    if stored.dtype.kind == "i":
        # Some files state the padding of signed pixels as an unsigned number.
        ends = [end - 65536 if end > 32767 else end for end in ends]
    fills: np.ndarray = (stored >= min(ends)) & (stored <= max(ends))
    return fills


def _shown_as_stored(dataset: Dataset) -> bool:
    # Without a window, a rescaling with a positive slope does not change the displayed image.
    return (
        dataset.PixelRepresentation == 0
        and _window(dataset) is None
        and not dataset.get("VOILUTSequence")
        and not dataset.get("ModalityLUTSequence")
        and _rescale(dataset)[0] > 0
    )


def _window(dataset: Dataset) -> tuple[float, float] | None:
    """Returns the centre and width of the first window; None without a valid one."""
    centres, widths = (numbers_of(dataset, f"Window{name}") for name in ("Center", "Width"))
    # PS3.3, C.11.2.1.2.1 and C.11.2.1.3: narrower windows are invalid. Exports write 0 if unset.
    least = 1.0 if text_of(dataset, "VOILUTFunction") in ("", "LINEAR") else 1e-9
    return (centres[0], widths[0]) if centres and widths and widths[0] >= least else None


def _rescale(dataset: Dataset) -> tuple[float, float]:
    """Returns the slope and the intercept from stored to modality values."""
    slope = next(iter(numbers_of(dataset, "RescaleSlope")), 1.0)
    if slope == 0:
        # It would erase the image; exports write it, with any intercept, where none is meant.
        return 1.0, 0.0
    return slope, next(iter(numbers_of(dataset, "RescaleIntercept")), 0.0)


def _brightness(dataset: Dataset, values: np.ndarray, used: np.ndarray) -> np.ndarray:
    """Returns the display brightness, 0 to 1, for each stored value."""
    if dataset.get("ModalityLUTSequence"):
        modality = _looked_up(dataset.ModalityLUTSequence[0], values)
    else:
        slope, intercept = _rescale(dataset)
        modality = values * slope + intercept
    window = _window(dataset)
    if dataset.get("VOILUTSequence"):
        item = dataset.VOILUTSequence[0]
        shares = _looked_up(item, modality) / (2.0 ** item.LUTDescriptor[2] - 1)
    elif window is not None:
        shares = _windowed(modality, *window, text_of(dataset, "VOILUTFunction") or "LINEAR")
    else:
        ends = modality[np.array([used.min(), used.max()], np.int32) - values[0]]
        if ends[0] == ends[1]:
            raise DicomError("all pixels of the DICOM file have one value; export it again")
        shares = (modality - ends.min()) / np.ptp(ends)
    return np.clip(shares, 0, 1)


def _looked_up(item: Dataset, values: np.ndarray) -> np.ndarray:
    """Returns the entries of a modality or VOI LUT for some values (PS3.3, C.11.1.1, C.11.2.1.1).

    Not pydicom's ``apply_voi``, which counts the entries of a LUT of 8 bits with 8 bits.
    """
    count, first, bits = item.LUTDescriptor
    count = count or 65536
    data = value_of(item, "LUTData")
    if isinstance(data, bytes):
        # Entries of 8 bits may be packed in pairs.
        packed = bits == 8 and len(data) < 2 * count
        order = "<" if item.original_encoding[1] is not False else ">"
        entries = np.frombuffer(data, np.uint8 if packed else f"{order}u2")
    else:
        entries = np.atleast_1d(np.asarray(data, np.float64))
    if len(entries) < count:
        raise ValueError(f"a LUT of {count} entries has {len(entries)}")
    looked_up: np.ndarray = entries[np.clip(np.rint(values) - first, 0, count - 1).astype(int)]
    return looked_up.astype(np.float64)


def _windowed(modality: np.ndarray, centre: float, width: float, function: str) -> np.ndarray:
    """Returns the brightness by a window's function; 0 and less are black, 1 and more white."""
    if function == "LINEAR":
        if width == 1:
            return (modality > centre - 0.5).astype(np.float64)
        return np.asarray((modality - (centre - 0.5)) / (width - 1) + 0.5)
    if function == "LINEAR_EXACT":
        return np.asarray((modality - centre) / width + 0.5)
    if function == "SIGMOID":
        with np.errstate(over="ignore"):
            return np.asarray(1 / (1 + np.exp(-4 * (modality - centre) / width)))
    raise ValueError(f"{function} is no function of a window")
