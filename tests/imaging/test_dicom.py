"""Tests of reading DICOM files."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.data import get_testdata_file
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.pixels import apply_windowing
from pydicom.uid import (
    MPEG2MPML,
    BasicTextSRStorage,
    ComputedRadiographyImageStorage,
    DeflatedExplicitVRLittleEndian,
    EncapsulatedPDFStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)

from boneage_cli.imaging.file_headers import is_dicom
from boneage_cli.imaging.radiograph import Radiograph
from boneage_cli.imaging.reading import (
    NoImageError,
    ReadError,
    read_radiograph,
    read_radiograph_bytes,
)


def read(data: bytes) -> Radiograph:
    return read_radiograph_bytes(data, "hand.dcm")


def sample(name: str) -> Path:
    """Returns the path of a file of the package pydicom-data."""
    path = get_testdata_file(name, download=False)
    if path is None:
        pytest.skip("pydicom-data is not installed")
    return Path(path)


def test_an_8_bit_image_in_dicom_reads_as_its_png(hand_pixels, as_dicom):
    radiograph = read(as_dicom(hand_pixels))
    np.testing.assert_array_equal(radiograph.pixels, hand_pixels)
    assert radiograph.pixels.dtype == np.uint8
    assert radiograph.white == 255


def test_real_radiographs_read_alike_from_png_and_from_dicom(shared_data, as_dicom):
    import zipfile

    with zipfile.ZipFile(shared_data / "rsna-native-150.zip") as file:
        names = [name for name in file.namelist() if name.endswith(".png")][:3]
        for name in names:
            png = read_radiograph_bytes(file.read(name), name)
            for pixels in (png.pixels, png.pixels.astype(np.uint16) * 257):
                radiograph = read(as_dicom(pixels))
                scaled = radiograph.pixels / radiograph.white
                np.testing.assert_allclose(scaled, png.pixels / 255, atol=1e-6)


def test_dicom_is_recognised_by_its_content(tmp_path, hand_pixels, as_dicom):
    path = tmp_path / "IM000001"
    path.write_bytes(as_dicom(hand_pixels))
    np.testing.assert_array_equal(read_radiograph(path).pixels, hand_pixels)


@pytest.mark.parametrize("with_meta", [True, False])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_files_of_archives_without_a_preamble_are_read(
    tmp_path, hand_pixels, as_dicom, syntax, depth, with_meta
):
    pixels = hand_pixels.astype(depth)
    data = as_dicom(pixels, syntax=syntax, PatientSex="F")[132:]
    if not with_meta:
        # The first element's value is the length of the file's meta information.
        data = data[12 + int.from_bytes(data[8:12], "little") :]
    path = tmp_path / "IM000001"
    path.write_bytes(data)
    assert is_dicom(path)
    radiograph = read_radiograph(path)
    np.testing.assert_array_equal(radiograph.pixels, pixels)
    assert radiograph.male is False


@pytest.mark.filterwarnings("ignore:Unknown encoding")
@settings(deadline=None)
@given(st.binary(max_size=200))
def test_no_bytes_are_more_than_a_file_that_cannot_be_read(data):
    for start in (b"", b"\x08\0\x05\0CS\x0a\0", b"\x02\0\0\0UL\x04\0", b"\x08\0\0\0\x04\0\0\0"):
        with pytest.raises(ReadError, match=r"hand\.dcm: "):
            read(start + data)


def test_an_index_of_an_archive_is_refused_with_what_to_name_instead():
    with pytest.raises(ReadError, match=r"index .*DICOMDIR.* name the folder"):
        read(sample("DICOMDIR").read_bytes())


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
def test_stored_bits_set_full_white(hand_pixels, as_dicom, bits):
    white = 2**bits - 1
    deep = np.rint(hand_pixels / 255 * white).astype(np.uint16)
    deep[0, 0] = white
    radiograph = read(as_dicom(deep, BitsStored=bits))
    assert radiograph.white == white
    np.testing.assert_array_equal(radiograph.pixels, deep)


@pytest.mark.parametrize("window", [{}, {"WindowCenter": 1800, "WindowWidth": 3000}])
def test_monochrome1_is_the_inverted_monochrome2(hand_pixels, as_dicom, window):
    deep = hand_pixels.astype(np.uint16) * 16
    plain = read(as_dicom(deep, BitsStored=12, **window))
    inverted = read(
        as_dicom(deep, BitsStored=12, PhotometricInterpretation="MONOCHROME1", **window)
    )
    assert inverted.white == plain.white
    np.testing.assert_allclose(inverted.pixels, plain.white - plain.pixels.astype(int), atol=1)


def test_the_window_is_applied_after_the_rescale(as_dicom):
    ramp = np.tile(np.arange(4096, dtype=np.uint16), (2, 1))
    radiograph = read(
        as_dicom(
            ramp,
            BitsStored=12,
            RescaleSlope=2,
            RescaleIntercept=-1000,
            WindowCenter=[3000, 100],
            WindowWidth=[2000, 100],
        )
    )
    # PS3.3 C.11.2.1.2.1 with the first window, on rescaled values 2000 to 4000.
    rescaled = np.arange(4096) * 2 - 1000
    expected = np.clip((rescaled - (3000 - 0.5)) / (2000 - 1) + 0.5, 0, 1)
    np.testing.assert_allclose(radiograph.pixels[0] / radiograph.white, expected, atol=2e-5)


def test_signed_values_and_falling_rescales_are_read(hand_pixels, as_dicom):
    signed = hand_pixels.astype(np.int16) * 8 - 1000
    radiograph = read(as_dicom(signed, BitsStored=12))
    spread = (hand_pixels - hand_pixels.min()) / np.ptp(hand_pixels)
    np.testing.assert_allclose(radiograph.pixels / 65535, spread, atol=1e-4)
    falling = read(as_dicom(hand_pixels.astype(np.uint16), RescaleSlope=-1, RescaleIntercept=255))
    np.testing.assert_allclose(falling.pixels / 65535, 1 - spread, atol=1e-4)


@pytest.mark.parametrize("name", ["mlut_18.dcm", "vlut_04.dcm"])
def test_lookup_tables_are_applied(name):
    # Both files show the SMPTE pattern: patches of 0 to 100 % in steps of 10 %.
    radiograph = read_radiograph(sample(name))
    shares = np.unique(np.rint(radiograph.pixels / radiograph.white * 100).astype(int))
    assert set(range(0, 101, 10)) <= set(shares)


@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("form", ["words", "bytes"])
def test_a_table_of_any_depth_shows_deep_pixels(as_dicom, bits, form):
    ramp = np.tile(np.arange(4096, dtype=np.uint16), (2, 1))
    # A curve as scanners write them, for rescaled values from -1000 to 3095.
    curve = (np.arange(4096) / 4095) ** 2
    item = Dataset()
    item.LUTDescriptor = [4096, -1000, bits]
    item["LUTDescriptor"].VR = "SS"
    entries = np.rint(curve * (2**bits - 1)).astype(np.uint8 if bits == 8 else np.uint16)
    if form == "words":
        item.LUTData = entries.tolist()
        item["LUTData"].VR = "US"
    else:
        item.LUTData = entries.tobytes()
        item["LUTData"].VR = "OW"
    rescale = {"RescaleSlope": 1, "RescaleIntercept": -1000}
    radiograph = read(as_dicom(ramp, BitsStored=12, VOILUTSequence=[item], **rescale))
    np.testing.assert_allclose(radiograph.pixels[0] / radiograph.white, curve, atol=0.51 / 255)


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_windows_show_what_pydicom_shows(as_dicom, function):
    ramp = np.tile(np.arange(4096, dtype=np.uint16), (2, 1))
    window = {"WindowCenter": 2000.5, "WindowWidth": 900, "VOILUTFunction": function}
    data = as_dicom(ramp, BitsStored=12, **window)
    expected = apply_windowing(ramp[0], pydicom.dcmread(io.BytesIO(data))) / 4095
    radiograph = read(data)
    np.testing.assert_allclose(radiograph.pixels[0] / radiograph.white, expected, atol=2e-5)


def test_padding_is_black(hand_pixels, as_dicom):
    pixels = hand_pixels.copy()
    pixels[:40] = 255
    padded = read(as_dicom(pixels, PixelPaddingValue=255)).pixels
    assert not padded[:40].any()


@pytest.mark.parametrize(
    ("padding", "elements"),
    [
        (65535, {}),
        (65535, {"PhotometricInterpretation": "MONOCHROME1"}),
        (65535, {"RescaleSlope": -1, "RescaleIntercept": 4095}),
        (-32768, {}),
        (-32768, {"PixelPaddingRangeLimit": -30000}),
        # Stated as an unsigned number, as some scanners do.
        (-2000, {"PixelPaddingValue": DataElement("PixelPaddingValue", "US", 63536)}),
    ],
)
def test_padding_does_not_change_how_bright_the_hand_is(hand_pixels, as_dicom, padding, elements):
    kind = np.uint16 if padding > 0 else np.int16
    pixels = hand_pixels.astype(kind) * 16
    plain = read(as_dicom(pixels[40:], **elements))
    framed = pixels.copy()
    framed[:40] = padding
    padded = read(as_dicom(framed, **{"PixelPaddingValue": padding} | elements))
    assert padded.white == plain.white
    np.testing.assert_array_equal(padded.pixels[40:], plain.pixels)


def test_a_rescale_of_nothing_does_not_change_a_window(hand_pixels, as_dicom):
    deep = hand_pixels.astype(np.uint16) * 16
    window = {"BitsStored": 12, "WindowCenter": 1800, "WindowWidth": 3000}
    odd = read(as_dicom(deep, RescaleSlope=0, RescaleIntercept=0, **window))
    np.testing.assert_array_equal(odd.pixels, read(as_dicom(deep, **window)).pixels)


@pytest.mark.filterwarnings("ignore:Invalid value for VR DS")
def test_a_window_of_no_width_and_a_rescale_of_nothing_are_none(hand_pixels, as_dicom):
    deep = hand_pixels.astype(np.uint16) * 16
    plain = read(as_dicom(deep, BitsStored=12))
    for elements in (
        {"WindowCenter": 0, "WindowWidth": 0},
        {"WindowCenter": [0, 5], "WindowWidth": [0, 3]},
        {"RescaleSlope": 0, "RescaleIntercept": 0},
        {"WindowCenter": "nan", "WindowWidth": 100},
        {"WindowCenter": "\\200", "WindowWidth": "100\\100"},
    ):
        odd = read(as_dicom(deep, BitsStored=12, **elements))
        np.testing.assert_array_equal(odd.pixels, plain.pixels)


def test_pixels_in_unusual_bits_are_refused(hand_pixels, as_dicom):
    high = hand_pixels.astype(np.uint16) << 8
    with pytest.raises(ReadError, match=r"12-bit pixels that end at bit 15 .* export"):
        read(as_dicom(high, BitsStored=12, HighBit=15))


def test_films_and_private_compressions_are_named(hand_pixels, as_dicom):
    file = as_dicom(hand_pixels, syntax=MPEG2MPML, stream=b"\0\0\1\xb3")
    with pytest.raises(ReadError, match=r"MPEG2.* not supported; export it uncompressed"):
        read(file)


def test_pixels_of_one_value_are_named(as_dicom):
    with pytest.raises(ReadError, match="all pixels of the DICOM file have one value"):
        read(as_dicom(np.full((40, 40), -5, np.int16)))


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless])
@pytest.mark.parametrize("depth", [8, 16])
def test_compressed_forms_give_the_pixels_of_the_uncompressed(hand_pixels, as_dicom, syntax, depth):
    pixels = hand_pixels if depth == 8 else hand_pixels.astype(np.uint16) * 257 + 5
    dataset = pydicom.dcmread(io.BytesIO(as_dicom(pixels)))
    dataset.compress(syntax, encoding_plugin="")
    file = io.BytesIO()
    dataset.save_as(file)
    np.testing.assert_array_equal(read(file.getvalue()).pixels, pixels)


def test_jpeg_ls_gives_the_pixels_of_the_uncompressed(as_dicom):
    compressed = pydicom.dcmread(sample("emri_small_jpeg_ls_lossless.dcm"))
    pixels = pydicom.dcmread(sample("emri_small.dcm")).pixel_array[0]
    stream = get_frame(compressed.PixelData, 0, number_of_frames=10)
    data = as_dicom(pixels, syntax=JPEGLSLossless, stream=stream, BitsStored=12)
    np.testing.assert_array_equal(read(data).pixels, pixels)


def test_jpeg_in_dicom_reads_as_the_jpeg(hand_pixels, as_dicom):
    stream = cv2.imencode(".jpg", hand_pixels)[1].tobytes()
    data = as_dicom(hand_pixels, syntax=JPEGBaseline8Bit, stream=stream)
    jpeg = read_radiograph_bytes(stream, "hand.jpg").pixels.astype(int)
    assert np.abs(read(data).pixels - jpeg).max() <= 2


def test_lossless_jpeg_is_read():
    radiograph = read_radiograph(sample("JPGLosslessP14SV1_1s_1f_8b.dcm"))
    assert radiograph.pixels.shape == (768, 1024)
    assert np.ptp(radiograph.pixels) == 255


@pytest.mark.parametrize("name", ["RG1", "RG3"])
def test_real_cr_radiographs_read_alike_in_every_syntax(name):
    plain = read_radiograph(sample(f"{name}_UNCR.dcm"))
    compressed = read_radiograph(sample(f"{name}_J2KR.dcm"))
    np.testing.assert_array_equal(plain.pixels, compressed.pixels)
    assert plain.white == 65535
    # Both are MONOCHROME1: in the stored pixels, bone is darker than its surroundings.
    stored = pydicom.dcmread(sample(f"{name}_UNCR.dcm")).pixel_array
    assert np.corrcoef(stored[::9, ::9].ravel(), plain.pixels[::9, ::9].ravel())[0, 1] < -0.9
    assert plain.male is False


def test_several_frames_are_refused():
    with pytest.raises(ReadError, match=r"emri_small\.dcm: .*10 frames"):
        read_radiograph(sample("emri_small.dcm"))


def test_a_file_without_an_image_is_refused(hand_pixels, as_dicom):
    for kind, reason in (
        (BasicTextSRStorage, r"\(Basic Text SR Storage\)"),
        (EncapsulatedPDFStorage, r"\(Encapsulated PDF Storage\)"),
        (ComputedRadiographyImageStorage, "or it is truncated"),
    ):
        dataset = pydicom.dcmread(io.BytesIO(as_dicom(hand_pixels, SOPClassUID=kind)))
        del dataset.PixelData, dataset.Rows, dataset.Columns
        file = io.BytesIO()
        dataset.save_as(file)
        with pytest.raises(ReadError, match=r"hand\.dcm: .*no image.* " + reason) as error:
            read(file.getvalue())
        assert isinstance(error.value, NoImageError) == (kind != ComputedRadiographyImageStorage)


@pytest.mark.filterwarnings("ignore:End of file")
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, JPEG2000Lossless, RLELossless])
def test_a_truncated_file_is_refused(hand_pixels, as_dicom, syntax, capfd):
    dataset = pydicom.dcmread(io.BytesIO(as_dicom(hand_pixels)))
    if syntax != ExplicitVRLittleEndian:
        dataset.compress(syntax, encoding_plugin="")
    file = io.BytesIO()
    dataset.save_as(file)
    data = file.getvalue()
    for length in (140, 400, len(data) // 2, len(data) - 20):
        with pytest.raises(ReadError, match=r"^hand\.dcm: [^\n]+$"):
            read(data[:length])
    assert capfd.readouterr().err == ""


def test_a_picture_that_ends_early_inside_a_whole_file_is_refused(hand_pixels, as_dicom):
    dataset = pydicom.dcmread(io.BytesIO(as_dicom(hand_pixels)))
    dataset.compress(JPEG2000Lossless, encoding_plugin="")
    stream = get_frame(dataset.PixelData, 0, number_of_frames=1)
    half = as_dicom(hand_pixels, syntax=JPEG2000Lossless, stream=stream[: len(stream) // 2])
    with pytest.raises(ReadError, match="truncated"):
        read(half)
    jpeg = cv2.imencode(".jpg", hand_pixels)[1].tobytes()
    half = as_dicom(hand_pixels, syntax=JPEGBaseline8Bit, stream=jpeg[: len(jpeg) // 2])
    with pytest.raises(ReadError, match="truncated"):
        read(half)


def test_a_bomb_is_refused_before_it_is_decoded(hand_pixels, as_dicom):
    with pytest.raises(ReadError, match="60000 × 60000 pixels are more"):
        read(as_dicom(hand_pixels, Rows=60000, Columns=60000))
    jpeg = bytearray(cv2.imencode(".jpg", hand_pixels)[1].tobytes())
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = b"\xea\x60\xea\x60"
    with pytest.raises(ReadError, match="its picture 60000 × 60000"):
        read(as_dicom(hand_pixels, syntax=JPEGBaseline8Bit, stream=bytes(jpeg)))
    dataset = pydicom.dcmread(io.BytesIO(as_dicom(hand_pixels)))
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    file = io.BytesIO()
    dataset.save_as(file)
    with pytest.raises(ReadError, match="deflated"):
        read(file.getvalue())


def test_pixels_of_an_unknown_kind_are_refused():
    for name, reason in {
        "OBXXXX1A.dcm": "PALETTE COLOR",
        "SC_rgb_32bit.dcm": "32-bit RGB",
    }.items():
        with pytest.raises(ReadError, match=reason):
            read_radiograph(sample(name))


def test_colours_are_as_bright_as_they_look(as_dicom):
    colours = np.zeros((8, 6, 3), np.uint8)
    colours[:, :2, 0], colours[:, 2:4, 1], colours[:, 4:, 2] = 200, 200, 200
    rgb = {"SamplesPerPixel": 3, "PlanarConfiguration": 0, "PhotometricInterpretation": "RGB"}
    # The weights of ITU-R BT.601.
    gray = read(as_dicom(colours, **rgb)).pixels[0, ::2]
    np.testing.assert_allclose(gray, [0.299 * 200, 0.587 * 200, 0.114 * 200], atol=1)


def test_colour_becomes_gray():
    radiograph = read_radiograph(sample("SC_rgb_16bit.dcm"))
    assert radiograph.pixels.shape == (100, 100)
    assert radiograph.white == 65535


@pytest.mark.parametrize(("stated", "male"), [("M", True), ("F", False), ("O", None), ("", None)])
def test_the_sex_is_read(hand_pixels, as_dicom, stated, male):
    assert read(as_dicom(hand_pixels, PatientSex=stated)).male is male


@pytest.mark.filterwarnings("ignore:Invalid value for VR DA")
@pytest.mark.parametrize(
    ("elements", "months"),
    [
        ({}, None),
        ({"PatientAge": "010Y"}, 120),
        ({"PatientAge": "018M"}, 18),
        ({"PatientAge": "004W"}, 0.92),
        ({"PatientAge": "030D"}, 0.986),
        ({"PatientAge": ""}, None),
        # 000Y is implausible: the age of infants is stated in days, weeks or months.
        ({"PatientAge": "000Y"}, None),
        ({"PatientAge": "000D"}, 0),
        ({"PatientBirthDate": "20100315", "AcquisitionDate": "20170315"}, 84),
        ({"PatientBirthDate": "20100315", "StudyDate": "", "ContentDate": "20170315"}, 84),
        ({"PatientBirthDate": "20100315", "StudyDate": "20170315"}, 84),
        ({"PatientBirthDate": "20100315"}, None),
        # The dates are more precise than a whole number of years.
        (
            {"PatientAge": "007Y", "PatientBirthDate": "20100315", "StudyDate": "20171115"},
            92.06,
        ),
        # Ages before birth or from an anonymised birth date are ignored.
        ({"PatientBirthDate": "20180101", "StudyDate": "20170101", "PatientAge": "005Y"}, 60),
        ({"PatientBirthDate": "18500101", "StudyDate": "20170101", "PatientAge": "005Y"}, 60),
        ({"PatientBirthDate": "19000101", "StudyDate": "20170101", "PatientAge": "005Y"}, None),
        ({"PatientBirthDate": "20150101", "StudyDate": "20170101", "PatientAge": "010Y"}, None),
        ({"PatientBirthDate": "20100101", "StudyDate": "20170101", "PatientAge": "010Y"}, None),
        ({"PatientBirthDate": "20100101", "StudyDate": "20170101", "PatientAge": "008Y"}, 84),
        # The date format of files from before 1993.
        ({"PatientBirthDate": "1987.11.05", "StudyDate": "1994.11.05"}, 84),
        # Seven digits do not say which of month and day has one.
        ({"PatientBirthDate": "20100315", "StudyDate": "2017315"}, None),
        ({"PatientBirthDate": "2010111", "StudyDate": "20170315", "PatientAge": "006Y"}, 72),
        (
            {"PatientBirthDate": "20100315", "StudyDate": "2015315", "ContentDate": "20170315"},
            84,
        ),
        ({"PatientBirthDate": "20100315", "StudyDate": "20171315", "PatientAge": "007Y"}, 84),
    ],
)
def test_the_age_is_read_in_months(hand_pixels, as_dicom, elements, months):
    age = read(as_dicom(hand_pixels, **elements)).age
    assert age == (None if months is None else pytest.approx(months, abs=0.03))


@pytest.mark.parametrize(
    ("birth", "stated", "doubt"),
    [
        ("20100101", "010Y", "84 months by the file's dates, but 120 by its PatientAge"),
        ("20100101", "009Y", None),
        ("20100101", "007Y", None),
        ("20100101", "004Y", "84 months by the file's dates, but 48 by its PatientAge"),
        ("20170501", "", "-4 months by the file's dates"),
        ("18900101", "", "1524 months by the file's dates"),
        ("20170501", "004Y", None),
    ],
)
def test_a_doubtful_age_is_unknown_with_the_reason(hand_pixels, as_dicom, birth, stated, doubt):
    dates = {"PatientBirthDate": birth, "StudyDate": "20170102"}
    found = read(as_dicom(hand_pixels, PatientAge=stated, **dates))
    assert found.age_doubt == doubt
    assert (found.age is None) == (doubt is not None)


@pytest.mark.parametrize(
    ("elements", "side"),
    [
        ({}, None),
        ({"Laterality": "L"}, "L"),
        ({"ImageLaterality": "R"}, "R"),
        ({"ImageLaterality": "U", "Laterality": "L"}, "L"),
        # Of the image before that of the series.
        ({"ImageLaterality": "R", "Laterality": "L"}, "R"),
        ({"Laterality": "B"}, None),
    ],
)
def test_the_laterality_is_read(hand_pixels, as_dicom, elements, side):
    assert read(as_dicom(hand_pixels, **elements)).laterality == side


def test_numbers_with_a_decimal_comma_count_as_missing(hand_pixels, as_dicom):
    window = {"WindowCenter": "99.9", "WindowWidth": "50"}
    data = as_dicom(hand_pixels, ImagerPixelSpacing=["0.27", "0.17"], **window)
    for number in (b"0.27", b"0.17", b"99.9"):
        assert number in data
        data = data.replace(number, number.replace(b".", b","))
    radiograph = read(data)
    assert radiograph.aspect is None
    np.testing.assert_array_equal(radiograph.pixels, hand_pixels)


@pytest.mark.filterwarnings("ignore:Invalid value for VR DS")
@pytest.mark.parametrize(
    ("elements", "aspect"),
    [
        ({}, None),
        ({"ImagerPixelSpacing": [0.1, 0.1]}, None),
        ({"ImagerPixelSpacing": [0.0, 0.0]}, None),
        ({"PixelSpacing": [0.2, 0.1]}, 256 * 0.1 / (320 * 0.2)),
        ({"PixelAspectRatio": ["1", "2"]}, 256 * 2 / 320),
        ({"ImagerPixelSpacing": [0.2, 0.1]}, 256 * 0.1 / (320 * 0.2)),
        # Precedence: stated aspect ratio, spacing on the detector, spacing measured in the image.
        ({"ImagerPixelSpacing": [0.2, 0.1], "PixelSpacing": [0.1, 0.3]}, 256 * 0.1 / (320 * 0.2)),
        ({"PixelAspectRatio": ["1", "2"], "ImagerPixelSpacing": [0.1, 0.3]}, 256 * 2 / 320),
        # What is no pair of plausible numbers counts as missing.
        ({"ImagerPixelSpacing": "0.15"}, None),
        ({"ImagerPixelSpacing": "0.15\\"}, None),
        ({"ImagerPixelSpacing": "inf\\0.1"}, None),
        ({"ImagerPixelSpacing": "0.1\\20", "PixelSpacing": [0.2, 0.1]}, 256 * 0.1 / (320 * 0.2)),
    ],
)
def test_pixels_that_are_not_square_give_the_aspect(hand_pixels, as_dicom, elements, aspect):
    assert read(as_dicom(hand_pixels, **elements)).aspect == (
        None if aspect is None else pytest.approx(aspect)
    )


def test_a_range_of_padding_is_black_and_changes_nothing_of_the_hand(hand_pixels, as_dicom):
    pixels = hand_pixels.astype(np.int16) * 16
    plain = read(as_dicom(pixels[40:]))
    framed = pixels.copy()
    framed[:20], framed[20:40] = -32000, -30000
    for ends in ((-32768, -30000), (-30000, -32768)):
        told = {"PixelPaddingValue": ends[0], "PixelPaddingRangeLimit": ends[1]}
        padded = read(as_dicom(framed, **told))
        assert not padded.pixels[:40].any()
        np.testing.assert_array_equal(padded.pixels[40:], plain.pixels)
