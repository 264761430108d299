"""Changes to a radiograph as caused by other devices, file exports and positioning.

Each is a pure function of a radiograph: the input is not modified, the same input gives the same
output, and depth and true aspect ratio are kept unless stated otherwise. Changes of the file, such
as its depth or inversion, are written to a file in memory and read again, so that they pass through
the same reader as a user's file.
"""

from __future__ import annotations

import io
import math
import zlib
from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np

from boneage_cli.errors import BoneageError
from boneage_cli.imaging.png import encode_png
from boneage_cli.imaging.radiograph import Radiograph, aspect_of, negative, pixels_of
from boneage_cli.imaging.reading import read_radiograph_bytes
from boneage_cli.imaging.resize import resize

# Noise grain and sizes of marks are relative to the image, so that a radiograph is affected equally
# at 300 and at 3000 pixels.
_GRAINS = 512
_LETTER = 0.08
_TEXT_BOX = 0.10
_MARGIN = 0.02
# The longest side that libjpeg can write, and that fits DICOM's 16 bits, pixels.
_JPEG_SIDE = 65500
_DICOM_SIDE = 65535
_TEXT = ("ANON 0000000", "HAND PA", "2000-01-01 12:00")


def turn_quarters(radiograph: Radiograph, quarters: int) -> Radiograph:
    """Rotates counter-clockwise by ``quarters`` right angles."""
    aspect = radiograph.aspect
    return replace(
        radiograph,
        pixels=np.rot90(radiograph.pixels, quarters).copy(),
        aspect=1 / aspect if aspect and quarters % 2 else aspect,
    )


def turn(radiograph: Radiograph, degrees: float) -> Radiograph:
    """Rotates counter-clockwise about the centre, keeping the image size.

    Points from outside the image take the nearest pixel's value, so the forearm continues and no
    corner is blacker than the border.
    """
    height, width = radiograph.pixels.shape
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    # The rotation is in millimetres; pixels may not be square.
    stretch = np.diag((_pixel_aspect(radiograph), 1.0))
    linear = np.linalg.inv(stretch) @ np.array([[cosine, sine], [-sine, cosine]]) @ stretch
    centre = np.array(((width - 1) / 2, (height - 1) / 2))
    turned = cv2.warpAffine(
        radiograph.pixels,
        np.column_stack([linear, centre - linear @ centre]),
        (width, height),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return replace(radiograph, pixels=turned)


def mirror(radiograph: Radiograph) -> Radiograph:
    """Exchanges left and right; the stated laterality does not change."""
    return replace(radiograph, pixels=radiograph.pixels[:, ::-1].copy())


def brighten(radiograph: Radiograph, by: float) -> Radiograph:
    """Adds a fraction of full white (subtracts it if negative) and clips to the range."""
    return _in_shares(radiograph, lambda shares: shares + by)


def scale_contrast(radiograph: Radiograph, factor: float) -> Radiograph:
    """Scales all differences from the mean intensity and clips to the range."""
    mean = float(radiograph.pixels.mean()) / radiograph.white
    return _in_shares(radiograph, lambda shares: mean + factor * (shares - mean))


def apply_gamma(radiograph: Radiograph, exponent: float) -> Radiograph:
    """Raises intensities, as fractions of full white, to a power; above 1 darkens mid-grays."""
    return _in_shares(radiograph, lambda shares: shares**exponent)


def blur(radiograph: Radiograph, sigma: float) -> Radiograph:
    """Blurs with a Gaussian whose standard deviation is a fraction of the longer side."""
    across, down = pixels_of(radiograph, sigma * max(1.0, aspect_of(radiograph)))
    blurred = cv2.GaussianBlur(
        radiograph.pixels, (0, 0), across, sigmaY=down, borderType=cv2.BORDER_REPLICATE
    )
    return replace(radiograph, pixels=blurred)


def reduce_to(radiograph: Radiograph, height: int) -> Radiograph:
    """Reduces an image taller than ``height`` pixels to that height; others are unchanged."""
    rows, columns = radiograph.pixels.shape
    if rows <= height:
        return radiograph
    width = max(1, round(columns * height / rows))
    small = resize(radiograph.pixels.astype(np.float32), width, height)
    # The width was rounded to whole pixels; the true aspect ratio is unchanged.
    return replace(radiograph, pixels=_rounded(radiograph, small), aspect=aspect_of(radiograph))


def add_noise(radiograph: Radiograph, deviation: float) -> Radiograph:
    """Adds Gaussian noise with a grain of 1/512 of the height; larger pixels average their grains.

    Args:
        radiograph: Its pixels seed the noise, which therefore does not depend on where the file
            lies.
        deviation: Standard deviation of a grain as a fraction of full white.
    """
    pixels = radiograph.pixels
    height, width = pixels.shape
    across, down = pixels_of(radiograph, 1 / _GRAINS)
    grid = math.ceil(height / max(down, 1.0)), math.ceil(width / max(across, 1.0))
    # A pixel that covers several grains has their mean.
    deviation *= radiograph.white * math.sqrt(min(down, 1.0) * min(across, 1.0))
    random = np.random.default_rng(zlib.crc32(pixels.tobytes()))
    grains = random.standard_normal(grid, np.float32) * deviation
    noise = cv2.resize(grains, (width, height), interpolation=cv2.INTER_NEAREST)
    return replace(radiograph, pixels=_rounded(radiograph, pixels + noise))


def cut(
    radiograph: Radiograph,
    *,
    left: float = 0.0,
    top: float = 0.0,
    right: float = 0.0,
    bottom: float = 0.0,
) -> Radiograph:
    """Crops fractions of the width and height, less than half on each side."""
    height, width = radiograph.pixels.shape
    rows = slice(int(top * height), height - int(bottom * height))
    columns = slice(int(left * width), width - int(right * width))
    return _reframed(radiograph, radiograph.pixels[rows, columns].copy())


def add_frame(radiograph: Radiograph, share: float) -> Radiograph:
    """Adds a black border on each side, a fraction of the width or height wide."""
    height, width = radiograph.pixels.shape
    down, across = round(share * height), round(share * width)
    return _reframed(radiograph, np.pad(radiograph.pixels, ((down, down), (across, across))))


def add_letter(radiograph: Radiograph) -> Radiograph:
    """Adds a lead letter, full white, in the upper left corner."""
    letter = np.zeros((96, 96), np.uint8)
    cv2.putText(letter, "L", (14, 84), cv2.FONT_HERSHEY_DUPLEX, 3.2, 255, 12, cv2.LINE_AA)
    return _stamped(radiograph, letter, _LETTER, right=False, bottom=False, opaque=False)


def add_text_box(radiograph: Radiograph) -> Radiograph:
    """Adds a box with three lines of white text on black in the lower right corner."""
    box = np.zeros((120, 300), np.uint8)
    cv2.rectangle(box, (1, 1), (298, 118), 255, 2)
    for line, text in enumerate(_TEXT):
        place = (12, 35 + 34 * line)
        cv2.putText(box, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.9, 255, 2, cv2.LINE_AA)
    return _stamped(radiograph, box, _TEXT_BOX, right=True, bottom=True, opaque=True)


def as_negative_png(radiograph: Radiograph) -> Radiograph:
    """Saves as a PNG with black bone on white, which a PNG cannot declare, and reads it."""
    return _read_again(radiograph, encode_png(negative(radiograph).pixels, quickly=True))


def as_16_bit_png(radiograph: Radiograph) -> Radiograph:
    """Saves as a PNG that uses the whole range of 16 bits, and reads it."""
    return _read_again(radiograph, encode_png(_at_depth(radiograph, np.uint16), quickly=True))


def as_jpeg(radiograph: Radiograph, quality: int) -> Radiograph:
    """Saves as a JPEG, which has 8 bits, and reads it.

    Args:
        radiograph: Any depth.
        quality: libjpeg's quality, 1 to 100.
    """
    settings = [cv2.IMWRITE_JPEG_QUALITY, quality]
    _check_sides(radiograph, _JPEG_SIDE, "JPEG")
    stream = cv2.imencode(".jpg", _at_depth(radiograph, np.uint8), settings)[1]
    return _read_again(radiograph, stream.tobytes())


def as_dicom(radiograph: Radiograph, photometric: str = "MONOCHROME2") -> Radiograph:
    """Saves as a DICOM file at the same depth, and reads it.

    Args:
        radiograph: Any depth.
        photometric: ``MONOCHROME2``, or ``MONOCHROME1``, which stores white as low values.
    """
    return _read_again(radiograph, dicom_bytes(radiograph, photometric))


def dicom_bytes(radiograph: Radiograph, photometric: str = "MONOCHROME2") -> bytes:
    """Returns an uncompressed Computed Radiography file, without patient data or window."""
    # Imported here because pydicom takes a quarter of a second to import.
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian, generate_uid

    _check_sides(radiograph, _DICOM_SIDE, "DICOM file")
    pixels = (negative(radiograph) if photometric == "MONOCHROME1" else radiograph).pixels
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = ComputedRadiographyImageStorage
    dataset.SOPInstanceUID = generate_uid(entropy_srcs=["boneage perturbation"])
    dataset.Modality = "CR"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = photometric
    dataset.BitsAllocated = 8 * pixels.itemsize
    dataset.BitsStored = int(radiograph.white).bit_length()
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = 0
    # Pixel data must have an even number of bytes (DICOM PS3.5, 8.1.1).
    dataset.PixelData = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes() + b"\0" * (
        pixels.nbytes % 2
    )
    dataset["PixelData"].VR = "OB" if pixels.itemsize == 1 else "OW"
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def _check_sides(radiograph: Radiograph, limit: int, what: str) -> None:
    height, width = radiograph.pixels.shape
    if max(height, width) > limit:
        raise BoneageError(
            f"{radiograph.source}: {width} × {height} pixels are more than a {what} holds"
        )


def _pixel_aspect(radiograph: Radiograph) -> float:
    """Returns the width of a stored pixel divided by its height, both in millimetres."""
    height, width = radiograph.pixels.shape
    return aspect_of(radiograph) * height / width


def _in_shares(radiograph: Radiograph, change: Callable[[np.ndarray], np.ndarray]) -> Radiograph:
    """Maps each intensity, as a fraction of full white, and clips the result to 0 to 1."""
    kind = radiograph.pixels.dtype
    shares = np.minimum(np.arange(np.iinfo(kind).max + 1) / radiograph.white, 1.0)
    table = np.rint(np.clip(change(shares), 0, 1) * radiograph.white).astype(kind)
    return replace(radiograph, pixels=table[radiograph.pixels])


def _rounded(radiograph: Radiograph, values: np.ndarray) -> np.ndarray:
    """Clips and rounds values to the radiograph's range and data type."""
    return np.rint(np.clip(values, 0, radiograph.white)).astype(radiograph.pixels.dtype)


def _reframed(radiograph: Radiograph, pixels: np.ndarray) -> Radiograph:
    """Replaces the pixels by a cropped or extended image and updates the aspect."""
    if radiograph.aspect is None:
        return replace(radiograph, pixels=pixels)
    height, width = pixels.shape
    return replace(radiograph, pixels=pixels, aspect=_pixel_aspect(radiograph) * width / height)


def _stamped(
    radiograph: Radiograph,
    mark: np.ndarray,
    share: float,
    *,
    right: bool,
    bottom: bool,
    opaque: bool,
) -> Radiograph:
    """Draws a mark (uint8, 255 is white) in a corner; its height is a fraction of the image's.

    Black parts of the mark cover the radiograph only if ``opaque``.
    """
    height, width = radiograph.pixels.shape
    rows, columns = mark.shape
    across, _ = pixels_of(radiograph, share * columns / rows)
    size = min(max(1, round(across)), width), min(max(1, round(share * height)), height)
    mark = cv2.resize(mark, size, interpolation=cv2.INTER_AREA)
    margin = round(_MARGIN * width), round(_MARGIN * height)
    spare = width - size[0], height - size[1]
    left = max(spare[0] - margin[0], 0) if right else min(margin[0], spare[0])
    top = max(spare[1] - margin[1], 0) if bottom else min(margin[1], spare[1])
    pixels = radiograph.pixels.copy()
    covered = pixels[top : top + size[1], left : left + size[0]]
    weight = mark.astype(np.float32) / 255
    beneath = 0.0 if opaque else covered * (1 - weight)
    covered[...] = _rounded(radiograph, beneath + weight * radiograph.white)
    return replace(radiograph, pixels=pixels)


def _at_depth(radiograph: Radiograph, kind: type[np.uint8] | type[np.uint16]) -> np.ndarray:
    """Scales the pixels to the whole range of 8 or 16 bits."""
    white = int(np.iinfo(kind).max)
    # In 64-bit floats, so that 8-bit values become exact multiples of 257.
    return np.rint(radiograph.pixels * (white / radiograph.white)).clip(0, white).astype(kind)


def _read_again(radiograph: Radiograph, data: bytes) -> Radiograph:
    """Reads the pixels from a file's content; all other attributes are kept."""
    found = read_radiograph_bytes(data, radiograph.source)
    return replace(radiograph, pixels=found.pixels, white=found.white)
