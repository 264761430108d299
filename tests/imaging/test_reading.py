"""Tests of reading radiographs from all file formats."""

from __future__ import annotations

import io
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from boneage_cli.imaging.png import write_png
from boneage_cli.imaging.reading import ReadError, read_radiograph, read_radiograph_bytes

SUFFIXES = (".png", ".jpg", ".tif", ".webp")


def encode(pixels: np.ndarray, suffix: str, *options: int) -> bytes:
    done, data = cv2.imencode(suffix, pixels, options)
    assert done
    return data.tobytes()


def encode_with_pillow(image: Image.Image, format: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )


def read(data: bytes) -> np.ndarray:
    return read_radiograph_bytes(data, "hand").pixels


def test_every_lossless_form_of_an_image_gives_the_same_pixels(hand_pixels):
    gray = Image.fromarray(hand_pixels)
    palette = gray.convert("P", palette=Image.Palette.WEB)
    palette.putdata(hand_pixels.ravel().tolist())
    palette.putpalette([level for gray_level in range(256) for level in [gray_level] * 3])
    opaque = np.dstack([hand_pixels] * 3 + [np.full_like(hand_pixels, 255)])
    forms = {
        "png": encode(hand_pixels, ".png"),
        "png, interlaced by another writer": encode_with_pillow(gray, "png", optimize=True),
        "png in colour": encode(cv2.cvtColor(hand_pixels, cv2.COLOR_GRAY2BGR), ".png"),
        "png with opaque alpha": encode(opaque, ".png"),
        "png with a palette": encode_with_pillow(palette, "png"),
        "png of gray and alpha": encode_with_pillow(gray.convert("LA"), "png"),
        "tiff": encode_with_pillow(gray, "tiff"),
        "tiff, LZW": encode_with_pillow(gray, "tiff", compression="tiff_lzw"),
        "tiff in colour": encode_with_pillow(gray.convert("RGB"), "tiff"),
        "webp, lossless": encode_with_pillow(gray, "webp", lossless=True),
    }
    for name, data in forms.items():
        radiograph = read_radiograph_bytes(data, name)
        assert radiograph.white == 255, name
        np.testing.assert_array_equal(radiograph.pixels, hand_pixels, err_msg=name)


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_lossy_forms_differ_by_little(hand_pixels, suffix):
    difference = np.abs(read(encode(hand_pixels, suffix)).astype(int) - hand_pixels)
    assert difference.mean() < 2


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bit_files_keep_their_depth(hand_pixels, suffix):
    deep = hand_pixels.astype(np.uint16) * 257 + 3
    radiograph = read_radiograph_bytes(encode(deep, suffix), "hand")
    np.testing.assert_array_equal(radiograph.pixels, deep)
    assert radiograph.white == 65535


@pytest.mark.parametrize(
    ("factor", "white"), [(1, 255), (4, 1023), (16, 4095), (64, 16383), (257, 65535)]
)
def test_the_same_image_in_any_depth_is_equally_bright(hand_pixels, factor, white):
    bright = np.clip(hand_pixels.astype(np.uint16), 0, 254)
    bright[0, 0] = 255
    radiograph = read_radiograph_bytes(encode(bright * np.uint16(factor), ".png"), "hand")
    assert radiograph.white == white
    np.testing.assert_allclose(radiograph.pixels / radiograph.white, bright / 255, atol=1 / 255)


@pytest.mark.parametrize("factor", [256, 257])
def test_a_very_dark_8_bit_image_widened_to_16_bits_stays_dark(factor):
    dark = np.tile(np.arange(12, dtype=np.uint16), (32, 4))
    radiograph = read_radiograph_bytes(encode(dark * np.uint16(factor), ".png"), "hand")
    assert radiograph.white == 65535


def test_a_dark_16_bit_png_that_states_its_significant_bits_stays_dark(tmp_path, hand_pixels):
    dark = hand_pixels.astype(np.uint16) * 20
    write_png(tmp_path / "hand.png", dark, full_range=True)
    radiograph = read_radiograph(tmp_path / "hand.png")
    assert radiograph.white == 65535
    np.testing.assert_array_equal(radiograph.pixels, dark)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_a_tiff_of_small_numbers_for_white_is_turned_round(hand_pixels, kind):
    white = np.iinfo(kind).max
    shown = hand_pixels.astype(kind) * (white // 255)
    stored = encode(white - shown, ".tiff", cv2.IMWRITE_TIFF_COMPRESSION, 1)
    entry = struct.pack("<HHII", 262, 3, 1, 1)
    assert stored.count(entry) == 1
    file = stored.replace(entry, struct.pack("<HHII", 262, 3, 1, 0))
    np.testing.assert_array_equal(read(file), shown)


def test_transparency_is_laid_on_black(hand_pixels):
    half = np.dstack([hand_pixels] * 3 + [np.full_like(hand_pixels, 128)])
    half[:10, :, 3] = 0
    pixels = read(encode(half, ".png"))
    np.testing.assert_allclose(pixels[10:], hand_pixels[10:] * (128 / 255), atol=1)
    assert not pixels[:10].any()
    tiff = encode_with_pillow(Image.fromarray(half[..., [2, 1, 0, 3]]), "tiff")
    np.testing.assert_allclose(read(tiff), pixels, atol=1)


def test_a_jpeg_is_turned_upright_by_its_exif(hand_pixels):
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation 6: rotate by 90° clockwise for display
    data = encode_with_pillow(Image.fromarray(hand_pixels), "jpeg", exif=exif, quality=95)
    difference = np.abs(read(data).astype(int) - np.rot90(hand_pixels, -1))
    assert difference.mean() < 2


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_truncated_file_is_named_and_refused(tmp_path, hand_pixels, suffix, capfd):
    data = encode(hand_pixels, suffix)
    path = tmp_path / f"hand{suffix}"
    for length in (5, 20, 40, len(data) // 2, len(data) - 30, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(ReadError, match=str(path)):
            read_radiograph(path)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_a_damaged_file_is_refused_or_read_but_never_crashes(suffix, data):
    image = np.arange(40 * 30, dtype=np.uint8).reshape(40, 30)
    content = bytearray(encode(image, suffix))
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=4)):
        content[place] ^= data.draw(st.integers(1, 255))
    try:
        pixels = read(bytes(content))
    except ReadError:
        return
    assert pixels.ndim == 2
    assert pixels.dtype in (np.uint8, np.uint16)
    if suffix == ".png":
        np.testing.assert_array_equal(pixels, image)


@settings(deadline=None, max_examples=100)
@given(
    st.sampled_from(
        [b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF\4\0\0\0WEBP", b"II*\0", b"MM\0*"]
    ),
    st.binary(max_size=300),
)
def test_bytes_that_are_no_image_are_refused(start, rest):
    with pytest.raises(ReadError, match="hand"):
        read(start + rest)


def test_files_that_are_no_images_are_named_with_the_reason(tmp_path):
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("id,boneage,male\n1,120,True\n")
    (tmp_path / "folder.png").mkdir()
    for name, reason in {
        "empty.png": "empty",
        "text.png": "not a PNG, JPEG, TIFF, WebP or DICOM file",
        "folder.png": "folder",
        "missing.png": "no such file",
        "nul\0.png": "",
    }.items():
        with pytest.raises(ReadError) as caught:
            read_radiograph(tmp_path / name)
        assert reason in str(caught.value)
        assert str(tmp_path / name) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_an_unreadable_file_is_named(tmp_path, monkeypatch, hand_pixels):
    path = tmp_path / "hand.png"
    path.write_bytes(encode(hand_pixels, ".png"))

    def refuse(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(ReadError, match=r"hand\.png.*Permission denied"):
        read_radiograph(path)


def bombs() -> dict[str, bytes]:
    side = 60_000
    small = np.zeros((8, 8), np.uint8)
    png = b"\x89PNG\r\n\x1a\n" + b"".join(
        png_chunk(kind, content)
        for kind, content in [
            (b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)),
            (b"IDAT", zlib.compress(bytes(1000))),
            (b"IEND", b""),
        ]
    )
    jpeg = bytearray(encode(small, ".jpg"))
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = struct.pack(">HH", side, side)
    webp = bytearray(encode_with_pillow(Image.new("RGBA", (8, 8), (9, 9, 9, 9)), "webp"))
    assert webp[12:16] == b"VP8X"
    webp[24:30] = struct.pack("<I", 16_000)[:3] * 2
    tiff = bytearray(encode_with_pillow(Image.fromarray(small), "tiff"))
    for tag in (256, 257):
        entry = tiff.index(struct.pack("<HH", tag, 4))
        tiff[entry + 8 : entry + 12] = struct.pack("<I", side)
    return {"png": png, "jpeg": bytes(jpeg), "webp": bytes(webp), "tiff": bytes(tiff)}


@pytest.mark.parametrize(("name", "data"), bombs().items())
def test_a_decompression_bomb_is_refused_before_it_is_decoded(name, data):
    with pytest.raises(ReadError, match=r"hand: \d+ × \d+ pixels are more than the 100,000,000"):
        read(data)


def test_a_png_whose_header_is_not_first_has_no_size_to_trust():
    file = bombs()["png"]
    hidden = file[:8] + png_chunk(b"tEXt", b"a" * 40) + file[8:]
    with pytest.raises(ReadError, match="are more than the 100,000,000"):
        read_radiograph_bytes(hidden, "hand.png")


def test_a_huge_file_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "huge.png"
    with path.open("wb") as file:
        file.truncate(2 * 10**9)
    with pytest.raises(ReadError, match="too large"):
        read_radiograph(path)


def test_files_of_several_pictures_are_refused(hand_pixels):
    first, second = Image.fromarray(hand_pixels), Image.fromarray(255 - hand_pixels)
    for format in ("tiff", "webp", "png"):
        data = encode_with_pillow(first, format, save_all=True, append_images=[second])
        with pytest.raises(ReadError, match="several pictures"):
            read(data)


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_pixels_that_are_no_intensities_of_8_or_16_bits_are_refused(dtype):
    data = encode_with_pillow(Image.fromarray(np.ones((20, 20), dtype)), "tiff")
    with pytest.raises(ReadError, match=r"8 or 16 bits"):
        read(data)


def test_odd_but_harmless_files_are_read_in_silence(hand_pixels, capfd):
    plain = encode(hand_pixels, ".png")
    header = plain[:33]
    text_with_wrong_checksum = struct.pack(">I", 4) + b"tEXt" + b"abcd" + b"0000"
    profile = png_chunk(b"iCCP", b"x\0\0" + zlib.compress(b"no profile"))
    for data in (
        header + profile + plain[33:],
        header + text_with_wrong_checksum + plain[33:],
        plain + b"trailing bytes",
        encode(hand_pixels, ".jpg") + b"trailing bytes",
    ):
        assert read(data).shape == hand_pixels.shape
    assert capfd.readouterr().err == ""


def test_reading_in_threads_gives_what_reading_one_by_one_gives(tmp_path, hand_pixels):
    paths = []
    for number in range(24):
        paths.append(tmp_path / f"{number}{SUFFIXES[number % 4]}")
        paths[-1].write_bytes(encode(np.roll(hand_pixels, 5 * number), paths[-1].suffix))
    alone = [read_radiograph(path).pixels for path in paths]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(read_radiograph, paths))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other.pixels)


def test_real_radiographs_are_read_as_another_decoder_reads_them(shared_data):
    import zipfile

    for archive in ("rsna-native-150.zip", "rsna-train-299-a.zip"):
        with zipfile.ZipFile(shared_data / archive) as file:
            names = [name for name in file.namelist() if name.endswith((".png", ".webp"))]
            for name in names[:: max(1, len(names) // 5)][:5]:
                data = file.read(name)
                expected = np.asarray(Image.open(io.BytesIO(data)).convert("L"), int)
                assert np.abs(read(data) - expected).max() <= 1, name


@pytest.mark.parametrize("suffix", [".png", ".tiff", ".webp"])
def test_colours_are_as_bright_as_they_look(suffix):
    colours = np.zeros((8, 6, 3), np.uint8)
    # OpenCV's order is blue, green, red.
    colours[:, :2, 2], colours[:, 2:4, 1], colours[:, 4:, 0] = 200, 200, 200
    pixels = encode(np.repeat(np.repeat(colours, 8, 0), 8, 1), suffix)
    gray = read(pixels)[4, 4::16]
    np.testing.assert_allclose(gray, [0.299 * 200, 0.587 * 200, 0.114 * 200], atol=3)
