"""Files of strangers: the pictures that they hold, and what is refused before it is decoded."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import imageio.v2 as imageio
import numpy as np
import pytest
from PIL import Image

from vlmrl.errors import UserError
from vlmrl.serving.uploads import TooLarge, UnknownKind, UploadLimits, decode_clip

LIMITS = UploadLimits(max_frames=12, max_side=64, max_decoded_megabytes=1)


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=array.dtype == object)
    return stream.getvalue()


def picture(array: np.ndarray, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, kind)
    return stream.getvalue()


def video(path: Path, frames: np.ndarray) -> bytes:
    imageio.mimwrite(path, list(frames), fps=30, codec="libx264", macro_block_size=2, pixelformat="yuv420p")
    return path.read_bytes()


FRAMES = np.random.default_rng(0).integers(0, 255, (5, 16, 32, 3), dtype=np.uint8)


def test_arrays_and_pictures_come_back_to_the_last_bit() -> None:
    np.testing.assert_array_equal(decode_clip([npy(FRAMES)], LIMITS), FRAMES)
    np.testing.assert_array_equal(decode_clip([npy(FRAMES[0]), npy(FRAMES[1:])], LIMITS), FRAMES)
    np.testing.assert_array_equal(decode_clip([npy(np.asfortranarray(FRAMES))], LIMITS), FRAMES)
    np.testing.assert_array_equal(decode_clip([picture(frame) for frame in FRAMES], LIMITS), FRAMES)


def test_a_grey_picture_and_a_transparent_one_are_red_green_and_blue() -> None:
    grey = FRAMES[0, :, :, 0]
    np.testing.assert_array_equal(decode_clip([picture(grey)], LIMITS)[0], np.stack([grey] * 3, axis=-1))
    transparent = np.concatenate([FRAMES[0], np.full((16, 32, 1), 7, np.uint8)], axis=-1)
    np.testing.assert_array_equal(decode_clip([picture(transparent)], LIMITS)[0], FRAMES[0])


def test_jpeg_and_mp4_come_back_as_nearly_as_they_were_written(tmp_path: Path) -> None:
    smooth = np.stack([np.full((16, 32, 3), (20 * i, 100, 250 - 20 * i), np.uint8) for i in range(9)])
    jpeg = decode_clip([picture(frame, "JPEG") for frame in smooth], LIMITS)
    film = decode_clip([video(tmp_path / "a.mp4", smooth)], LIMITS)
    for decoded in (jpeg, film):
        assert decoded.shape == smooth.shape
        assert np.abs(decoded.astype(int) - smooth).max() < 12


def test_a_clip_that_is_too_long_is_refused_whatever_carries_it(tmp_path: Path) -> None:
    long = np.zeros((13, 16, 32, 3), np.uint8)
    for files in ([npy(long)], [picture(frame) for frame in long], [video(tmp_path / "a.mp4", long)]):
        with pytest.raises(TooLarge, match=r"more than 12 pictures \(max_frames\)"):
            decode_clip(files, LIMITS)


def test_large_pictures_are_refused_by_what_they_claim(tmp_path: Path) -> None:
    wide = np.zeros((1, 16, 66, 3), np.uint8)
    for file in (npy(wide), picture(wide[0]), video(tmp_path / "a.mp4", wide)):
        with pytest.raises(UserError, match="66 x 16 pixels; a side has at most 64|cannot be decoded"):
            decode_clip([file], LIMITS)
    limits = UploadLimits(max_frames=1000, max_side=1024, max_decoded_megabytes=1)
    with pytest.raises(TooLarge, match="more than 1 MiB when decoded"):
        decode_clip([npy(np.zeros((10, 200, 200, 3), np.uint8))], limits)
    frame = npy(np.zeros((1, 200, 200, 3), np.uint8))
    with pytest.raises(TooLarge, match="more than 1 MiB when decoded"):
        decode_clip([frame], limits, before=1 << 20)  # what other cameras have brought counts
    with pytest.raises(TooLarge, match="File 9 of 10: .* more than 1 MiB when decoded"):
        decode_clip([frame] * 10, limits)


def test_a_decompression_bomb_is_not_unpacked() -> None:
    """A PNG of a kilobyte that claims 60,000 x 60,000 pixels: ten gigabytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1 << 20)))
    with pytest.raises(UserError, match="60000 x 60000 pixels; a side has at most 64|exceeds limit"):
        decode_clip([bomb], LIMITS)
    lying = npy(FRAMES).replace(b"(5, 16, 32, 3)", b"(9, 64, 64, 3)")
    with pytest.raises(UserError, match="holds 7680 bytes, and its header says 110592"):
        decode_clip([lying], LIMITS)


class Trap:
    def __reduce__(self) -> tuple:
        return (Path("/tmp/vlmrl-trap").touch, ())


def test_nothing_is_unpickled() -> None:
    with pytest.raises(UserError, match="This array is object"):
        decode_clip([npy(np.array([Trap()], dtype=object))], LIMITS)
    assert not Path("/tmp/vlmrl-trap").exists()


def test_a_playlist_in_disguise_opens_no_other_file() -> None:
    playlist = b"#EXTM3U\n#EXT-X-MEDIA-SEQUENCE:0\n#EXTINF:10.0,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"
    with pytest.raises(UnknownKind):
        decode_clip([playlist], LIMITS)
    with pytest.raises(UserError, match="This video cannot be decoded"):
        decode_clip([b"\x00\x00\x00\x18ftypmp42" + playlist], LIMITS)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no kind of file"),
        (b"GIF89a" + bytes(40), "no kind of file"),
        (b"\x93NUMPY\x01\x00\x05\x00(((((", "no header that can be read"),
        (b"\x93NUMPY\x09\x00" + bytes(99), "no header that can be read"),
        (picture(FRAMES[0])[:200], "This picture cannot be decoded"),
        (npy(FRAMES.astype(np.float32)), "This array is float32"),
        (npy(FRAMES[..., :2]), "uint8, \\(5, 16, 32, 2\\); pictures are"),
        (npy(FRAMES[:0]), "there must be something to see"),
    ],
)
def test_what_cannot_be_read_is_said(content: bytes, said: str) -> None:
    with pytest.raises(UserError, match=f"File 2 of 2: .*{said}"):
        decode_clip([npy(FRAMES), content], LIMITS)


def test_pictures_of_one_camera_have_one_size_and_there_is_one() -> None:
    with pytest.raises(UserError, match="File 2 of 2 has pictures of 16 x 16 pixels, those before it of 32 x 16"):
        decode_clip([npy(FRAMES), npy(FRAMES[:, :, :16])], LIMITS)
    with pytest.raises(UserError, match="There is no picture"):
        decode_clip([], LIMITS)
