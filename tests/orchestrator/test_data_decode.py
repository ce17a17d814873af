from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from image_data import image_bytes
from PIL import Image, ImageOps

from orchestrator.data.format.jpeg import reduction_for
from orchestrator.data.read.decode import UndecodableError, central_box, decode_into, decode_rgb, random_box


def decode(data: bytes, side: int = 24) -> np.ndarray:
    out = np.empty((side, side, 3), dtype=np.uint8)
    decode_into(data, out, central_box)
    return out


def saved(image: Image.Image, format: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, format=format, **options)
    return out.getvalue()


BASE = Image.open(io.BytesIO(image_bytes(5)))
PIXELS = np.asarray(BASE)


def test_png_is_read_exactly() -> None:
    assert np.array_equal(decode(image_bytes(5)), PIXELS)


@pytest.mark.parametrize(
    ("image", "format", "tolerance"),
    [
        (BASE, "JPEG", 6),
        (BASE, "WEBP", 8),
        (BASE.convert("CMYK"), "JPEG", 10),
        (BASE.convert("RGBA"), "PNG", 0),
        (BASE.convert("P", palette=Image.Palette.ADAPTIVE), "PNG", 16),
    ],
)
def test_colour_images_of_every_kind_come_out_as_rgb(image: Image.Image, format: str, tolerance: int) -> None:
    options = {"quality": 100} if format == "JPEG" else {}
    assert np.abs(decode(saved(image, format, **options)).astype(int) - PIXELS).mean() <= tolerance


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
def test_greyscale_fills_all_channels(format: str) -> None:
    out = decode(saved(BASE.convert("L"), format))
    assert np.abs(out.astype(int) - np.asarray(BASE.convert("L"))[..., None]).mean() < 4


def test_sixteen_bits_keep_their_upper_eight() -> None:
    values = (np.arange(24 * 24, dtype=np.uint16) * 100).reshape(24, 24)
    out = decode(saved(Image.fromarray(values), "PNG"))
    assert np.array_equal(out, np.repeat((values >> 8).astype(np.uint8)[..., None], 3, axis=2))


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
def test_exif_orientation_is_applied(format: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    options = {"lossless": True} if format == "WEBP" else {"quality": 100}
    out = decode(saved(BASE, format, exif=exif, **(options if format != "PNG" else {})))
    assert np.abs(out.astype(int) - np.rot90(PIXELS, -1)).mean() < 4


def seen(data: bytes) -> np.ndarray:
    """An image as Pillow shows it: turned, 8-bit RGB."""
    return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")).astype(int)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_jpeg_is_turned_as_pillow_turns_it(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(Image.open(io.BytesIO(image_bytes(3, size=(20, 30)))), "JPEG", quality=95, exif=exif)
    expected = seen(data)
    out = np.empty(expected.shape, dtype=np.uint8)
    decode_into(data, out, lambda width, height: (0, 0, width, height))
    assert np.abs(out - expected).max() <= 2


@pytest.mark.parametrize(
    "options", [{"progressive": True}, {"subsampling": 0}, {"subsampling": 2}, {"quality": 30}]
)
def test_every_kind_of_jpeg_is_decoded_as_pillow_decodes_it(options: dict[str, int]) -> None:
    data = saved(Image.open(io.BytesIO(image_bytes(3, size=(61, 43)))), "JPEG", **options)
    out = np.empty((43, 61, 3), dtype=np.uint8)
    decode_into(data, out, lambda width, height: (0, 0, width, height))
    assert np.abs(out - seen(data)).max() <= 2


def test_a_crop_is_resized_as_pillow_resizes_it() -> None:
    box = (31, 17, 171, 140)
    for number in range(5):
        data = image_bytes(number, size=(200, 150), format="JPEG")
        out = np.empty((64, 64, 3), dtype=np.uint8)
        decode_into(data, out, lambda width, height: box)
        image = Image.open(io.BytesIO(data)).resize((64, 64), Image.Resampling.BILINEAR, box=box)
        assert np.abs(out.astype(int) - np.asarray(image)).max() <= 2


def test_a_crop_is_written_into_its_row_of_the_batch_alone() -> None:
    data, box = image_bytes(3, size=(200, 150), format="JPEG"), (31, 17, 171, 140)
    batch_BHWC = np.full((3, 40, 64, 3), 7, dtype=np.uint8)
    decode_into(data, batch_BHWC[1], lambda width, height: box)
    crop_1CHW = torch.from_numpy(seen(data)[17:140, 31:171].astype(np.uint8)).permute(2, 0, 1)[None]
    expected_1CHW = F.interpolate(crop_1CHW, size=(40, 64), mode="bilinear", antialias=True)
    assert np.abs(batch_BHWC[1].astype(int) - expected_1CHW[0].permute(1, 2, 0).numpy()).max() <= 2
    assert (batch_BHWC[[0, 2]] == 7).all()


@given(
    st.sampled_from(
        [{"subsampling": 0}, {"subsampling": 1}, {"subsampling": 2}, {"progressive": True}, {"mode": "L"}]
    ),
    st.tuples(st.integers(0, 60), st.integers(1, 61)).filter(lambda pair: pair[0] < pair[1]),
    st.tuples(st.integers(0, 82), st.integers(1, 83)).filter(lambda pair: pair[0] < pair[1]),
)
@examples(60)
def test_a_crop_of_a_jpeg_is_the_same_as_of_the_whole_image(
    options: dict[str, object], columns: tuple[int, int], rows: tuple[int, int]
) -> None:
    image = Image.open(io.BytesIO(image_bytes(3, size=(61, 83))))
    data = saved(image.convert(str(options.get("mode", "RGB"))), "JPEG", **options)
    out = np.empty((rows[1] - rows[0], columns[1] - columns[0], 3), dtype=np.uint8)
    decode_into(data, out, lambda width, height: (columns[0], rows[0], columns[1], rows[1]))
    assert np.array_equal(out, decode_rgb(data)[rows[0] : rows[1], columns[0] : columns[1]])


def test_a_truncated_jpeg_is_undecodable_even_where_the_crop_is_whole() -> None:
    data = image_bytes(3, size=(64, 400), format="JPEG")
    out = np.empty((8, 8, 3), dtype=np.uint8)
    with pytest.raises(UndecodableError):
        decode_into(data[: len(data) // 2], out, lambda width, height: (0, 0, 16, 16))


@pytest.mark.parametrize("box", [(0, 0, 640, 480), (37, 101, 630, 471)])
def test_a_photo_far_larger_than_the_crop_is_reduced_by_the_decoder_and_looks_the_same(
    box: tuple[int, int, int, int],
) -> None:
    data = image_bytes(3, size=(640, 480), format="JPEG")
    out = np.empty((24, 24, 3), dtype=np.uint8)
    decode_into(data, out, lambda width, height: box)
    image = Image.open(io.BytesIO(data)).resize((24, 24), Image.Resampling.BILINEAR, box=box)
    assert reduction_for(box, 24, 24) > 1
    assert np.abs(out.astype(int) - np.asarray(image)).mean() < 0.6


@pytest.mark.parametrize(
    ("side", "reduction"),
    [(1, 1), (224, 1), (1791, 1), (1792, 2), (3583, 2), (3584, 4), (7168, 8), (60_000, 8)],
)
def test_the_decoder_reduces_only_what_leaves_four_times_the_pixels(side: int, reduction: int) -> None:
    assert reduction_for((5, 9, 5 + side, 9 + side), 224, 224) == reduction
    assert reduction_for((0, 0, 60_000, side), 224, 224) == reduction


def test_a_jpeg_with_bytes_between_its_segments_is_left_to_pillow() -> None:
    data = image_bytes(5, format="JPEG")
    out = decode(data[:-2] + b"\0" * 7 + data[-2:])
    assert np.abs(out.astype(int) - decode(data)).max() <= 2


@pytest.mark.parametrize(
    "data", [b"", b"no image", image_bytes(1)[:-40], image_bytes(1, format="JPEG")[:200]]
)
def test_damaged_images_are_undecodable(data: bytes) -> None:
    with pytest.raises(UndecodableError):
        decode(data)


def test_the_reason_is_the_same_in_every_process() -> None:
    with pytest.raises(UndecodableError, match=r"^not an image of JPEG, PNG, WEBP$"):
        decode(b"these bytes are a letter, not a picture")


@pytest.mark.parametrize("format", ["GIF", "BMP", "TIFF", "PPM"])
def test_other_formats_are_refused(format: str) -> None:
    with pytest.raises(UndecodableError):
        decode(saved(BASE, format))


def test_a_jpeg_bomb_is_refused_before_it_is_decoded() -> None:
    data = bytearray(image_bytes(5, format="JPEG"))
    start = data.index(b"\xff\xc0") + 5
    data[start : start + 4] = struct.pack(">HH", 60_000, 60_000)
    with pytest.raises(UndecodableError, match=r"60000 x 60000 pixels"):
        decode(bytes(data))


def png_header(width: int, height: int) -> bytes:
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))


@pytest.mark.parametrize("side", [7100, 10_000, 20_000, 2**31 - 1])
def test_a_bomb_is_refused_before_it_is_decoded(side: int) -> None:
    with pytest.raises(UndecodableError, match=r"pixels|Bomb|EOF|IHDR|truncated"):
        decode(png_header(side, side) + image_bytes(0)[33:])


@examples(200)
@given(
    st.integers(1, 2000),
    st.integers(1, 2000),
    st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)).map(sorted),
    st.tuples(st.floats(0.2, 5), st.floats(0.2, 5)).map(sorted),
    st.integers(0, 2**62),
)
def test_a_random_box_lies_within_the_image(
    width: int, height: int, scale: list[float], ratio: list[float], sample_id: int
) -> None:
    left, top, right, bottom = random_box(
        width, height, scale=tuple(scale), aspect_ratio=tuple(ratio), seed=1, epoch=2, sample_id=sample_id
    )
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height


def test_random_boxes_have_the_area_and_ratio_that_was_asked_for() -> None:
    boxes = np.array(
        [
            random_box(
                400, 400, scale=(0.2, 0.5), aspect_ratio=(0.75, 4 / 3), seed=0, epoch=0, sample_id=number
            )
            for number in range(2000)
        ]
    )
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    area = width * height / 160_000
    assert area.min() > 0.19
    assert area.max() < 0.51
    assert area.mean() == pytest.approx(0.35, abs=0.01)
    assert np.log(width / height).mean() == pytest.approx(0, abs=0.02)
    assert (width / height).max() < 1.36


def test_a_box_depends_on_seed_epoch_and_sample_alone() -> None:
    def box(seed: int, epoch: int, sample_id: int) -> tuple[int, ...]:
        return random_box(
            200, 100, scale=(0.2, 0.9), aspect_ratio=(0.5, 2.0), seed=seed, epoch=epoch, sample_id=sample_id
        )

    assert box(1, 2, 3) == box(1, 2, 3)
    assert len({box(1, 2, 3), box(2, 2, 3), box(1, 3, 3), box(1, 2, 4)}) == 4


def test_a_full_box_at_the_image_size_changes_nothing() -> None:
    out = np.empty((24, 24, 3), dtype=np.uint8)
    decode_into(image_bytes(5), out, lambda width, height: (0, 0, width, height))
    assert np.array_equal(out, PIXELS)


def test_the_central_box_has_the_ratio_of_the_encoders_images() -> None:
    assert central_box(400, 300) == (50, 0, 350, 300)
    assert central_box(400, 300, aspect_ratio=2.0) == (0, 50, 400, 250)
    assert central_box(300, 400, aspect_ratio=0.5) == (50, 0, 250, 400)
    assert central_box(1, 900, aspect_ratio=1.5) == (0, 449, 1, 450)
