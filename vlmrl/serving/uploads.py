"""Pictures that strangers send: decoded within limits, and by nothing that could run code.

A file is told by its first bytes, never by its name. What it claims to hold is compared with the limits before it is
decoded, because a few kilobytes can unfold into gigabytes. NumPy arrays are read without pickle; a video's container
is named to the decoder, so that no playlist can make it open other files or addresses.
"""

from __future__ import annotations

import io
import math
import tempfile
import tokenize
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vlmrl.errors import UserError
from vlmrl.typed import Count

PNG, JPEG, NUMPY = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"\x93NUMPY"
MP4_MARK = slice(4, 8)  # an ISO media file begins with the length of its first box, and that box's type
MEGABYTE = 1 << 20
DECODING_SECONDS = 60  # of a processor that one video may take
KINDS = "a video (mp4), pictures (PNG or JPEG), or a NumPy array (npy, uint8, (frames, height, width, 3))"


class TooLarge(UserError):
    """Something is larger than the server takes."""


class UnknownKind(UserError):
    """A file is of no kind that is read here."""


@dataclass(frozen=True)
class UploadLimits:
    """How much one request may bring.

    Attributes:
        max_megabytes: Size of a request as it is sent, in MiB.
        max_frames: Pictures of one request, over all its cameras.
        max_side: Pixels of a picture's longer side.
        max_decoded_megabytes: Size of all its pictures together once they are decoded, three bytes a pixel, in MiB.
        max_sentences: Sentences of one request.
        max_characters: Length of a sentence.
    """

    max_megabytes: Count = 64
    max_frames: Count = 1024
    max_side: Count = 2048
    max_decoded_megabytes: Count = 512
    max_sentences: Count = 32
    max_characters: Count = 1000

    def check_frames(self, n: int, height: int, width: int, before: int = 0) -> None:
        """Refuse pictures that are too many or too large, before they are decoded.

        Args:
            n: Number of pictures.
            height: Of each, in pixels.
            width: Of each, in pixels.
            before: Bytes of pictures that the request has brought already.

        Raises:
            TooLarge: Says which limit.
            UserError: There is nothing to see.
        """
        if min(n, height, width) < 1:
            raise UserError(f"There are {n} pictures of {width} x {height} pixels; there must be something to see.")
        if n > self.max_frames:
            raise TooLarge(
                f"There are more than {self.max_frames} pictures (max_frames). Send the clip in parts, or every k-th."
            )
        if max(height, width) > self.max_side:
            raise TooLarge(
                f"A picture has {width} x {height} pixels; a side has at most {self.max_side} (max_side). Encoders "
                "look at a few hundred: send it smaller."
            )
        if before + 3 * n * height * width > self.max_decoded_megabytes * MEGABYTE:
            raise TooLarge(
                f"These pictures take more than {self.max_decoded_megabytes} MiB when decoded "
                "(max_decoded_megabytes). Send the clip in parts, or smaller pictures."
            )

    def check_texts(self, texts: Sequence[str]) -> None:
        """Refuse too many sentences, or too long ones.

        Raises:
            TooLarge: Says which limit.
        """
        if len(texts) > self.max_sentences:
            raise TooLarge(f"There are {len(texts)} sentences; at most {self.max_sentences} are read (max_sentences).")
        longest = max(map(len, texts), default=0)
        if longest > self.max_characters:
            raise TooLarge(
                f"A sentence has {longest} characters; at most {self.max_characters} are read (max_characters)."
            )


def decode_clip(files: Sequence[bytes], limits: UploadLimits, before: int = 0) -> np.ndarray:
    """Decode the pictures of one camera.

    Args:
        files: Contents of files in order of time; each holds one picture or more, all of the same size.
        limits: How much is taken, over all files.
        before: Bytes of pictures that the request has brought already, of other cameras.

    Returns:
        (n, H, W, 3) uint8 RGB, n >= 1.

    Raises:
        TooLarge: There is more than the limits allow.
        UnknownKind: A file is of no kind that is read here.
        UserError: A file is damaged, or pictures differ in size.
    """
    parts: list[np.ndarray] = []
    for number, content in enumerate(files):
        try:
            part = _decode(content, limits, before + sum(part.nbytes for part in parts))
        except UserError as error:
            raise type(error)(f"File {number + 1} of {len(files)}: {error}") from error
        if parts and part.shape[1:] != parts[0].shape[1:]:
            raise UserError(
                f"File {number + 1} of {len(files)} has pictures of {part.shape[2]} x {part.shape[1]} pixels, those "
                f"before it of {parts[0].shape[2]} x {parts[0].shape[1]}; the pictures of one camera have one size."
            )
        parts.append(part)
        limits.check_frames(sum(map(len, parts)), part.shape[1], part.shape[2], before)
    if not parts:
        raise UserError(f"There is no picture. Send {KINDS}.")
    return np.concatenate(parts) if len(parts) > 1 else parts[0]


def _decode(content: bytes, limits: UploadLimits, before: int) -> np.ndarray:
    """Decode one file to (n, H, W, 3) uint8."""
    if content.startswith(NUMPY):
        return _decode_array(content, limits, before)
    if content.startswith((PNG, JPEG)):
        return _decode_picture(content, limits, before)
    if content[MP4_MARK] == b"ftyp":
        return _decode_video(content, limits, before)
    raise UnknownKind(f"This is no kind of file that is read here. Send {KINDS}.")


def _decode_array(content: bytes, limits: UploadLimits, before: int) -> np.ndarray:
    stream = io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(stream)
        if version not in ((1, 0), (2, 0)):  # a later one is for field names, which pictures have none of
            raise ValueError(f"version {version}")
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read_header(stream)
    except (ValueError, SyntaxError, TypeError, tokenize.TokenError, RecursionError, MemoryError) as error:
        raise UserError(f"This NumPy file has no header that can be read ({error}).") from error
    if dtype != np.uint8 or len(shape) not in (3, 4) or shape[-1] != 3:
        raise UserError(
            f"This array is {dtype}, {shape}; pictures are uint8, (frames, height, width, 3), red, green and blue "
            "from 0 to 255."
        )
    n, height, width = shape[-4:-1] if len(shape) == 4 else (1, *shape[:2])
    limits.check_frames(n, height, width, before)
    if len(content) - stream.tell() != math.prod(shape):
        raise UserError(
            f"This NumPy file holds {len(content) - stream.tell()} bytes, and its header says {math.prod(shape)}."
        )
    array = np.load(io.BytesIO(content), allow_pickle=False)
    return np.ascontiguousarray(array.reshape(n, height, width, 3))


def _decode_picture(content: bytes, limits: UploadLimits, before: int) -> np.ndarray:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content), formats=("PNG", "JPEG")) as picture:  # reads no more than the header
            limits.check_frames(1, picture.height, picture.width, before)
            return np.asarray(picture.convert("RGB"))[None]
    except UserError:
        raise
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:  # what PIL says of bad files
        raise UserError(f"This picture cannot be decoded ({error}).") from error


def _decode_video(content: bytes, limits: UploadLimits, before: int) -> np.ndarray:
    import imageio_ffmpeg

    with tempfile.NamedTemporaryFile(suffix=".mp4") as file:  # an mp4 may have its index at the end: a pipe won't do
        file.write(content)
        file.flush()
        # One frame more than is taken tells a clip that is too long; timestamps neither double nor drop frames.
        reader = imageio_ffmpeg.read_frames(
            file.name,
            pix_fmt="rgb24",
            input_params=[
                *("-f", "mov", "-protocol_whitelist", "file"),
                *("-max_pixels", str(limits.max_side**2), "-timelimit", str(DECODING_SECONDS)),
            ],
            output_params=["-frames:v", str(limits.max_frames + 1), "-fps_mode", "passthrough"],
        )
        try:
            about = next(reader)
            width, height = about["size"]
            limits.check_frames(1, height, width, before)
            frames: list[bytes] = []
            for frame in reader:
                frames.append(frame)
                limits.check_frames(len(frames), height, width, before)
        except (OSError, RuntimeError, KeyError, StopIteration) as error:
            raise UserError("This video cannot be decoded; is it a whole mp4 file with a picture?") from error
        finally:
            reader.close()
    limits.check_frames(len(frames), height, width, before)
    return np.frombuffer(b"".join(frames), dtype=np.uint8).reshape(-1, height, width, 3)
