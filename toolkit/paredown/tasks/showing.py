"""Samples as a person sees them: small pictures and short sounds, in formats that every browser plays, and pieces of text."""

from __future__ import annotations

import io
import struct
import wave
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

MOST_PIXELS = 96
"""Of the longer side of a picture."""

MOST_SECONDS = 8
"""Of a sound; what is behind is cut off."""

MOST_CHARACTERS = 1000
"""Of a text that is answered whole."""


def shortened(text: str) -> str:
    """A text of at most `MOST_CHARACTERS`."""
    return text if len(text) <= MOST_CHARACTERS else text[: MOST_CHARACTERS - 1] + "…"


def png(image: Any) -> bytes:
    """A small PNG of an image.

    Args:
        image: [height, width], [channels, height, width] or [height, width, channels] with 1 or 3 channels: whole numbers from 0 to 255, or
            any others, which are stretched to that range; or whatever `numpy.asarray` makes such an array of, as of a PIL image.

    Returns:
        The file's bytes; none where it is no such image.
    """
    pixels = torch.as_tensor(np.asarray(image))
    if pixels.dim() == 2:
        pixels = pixels[None]
    if pixels.dim() == 3 and pixels.shape[0] not in (1, 3) and pixels.shape[2] >= 3:
        pixels = pixels[..., :3].permute(2, 0, 1)
    if pixels.dim() != 3 or pixels.shape[0] not in (1, 3):
        return b""
    grey = pixels.float()
    if pixels.is_floating_point():
        low, high = grey.aminmax()
        grey = (grey - low) * (255 / max(float(high - low), 1e-12))
    scale = MOST_PIXELS / max(grey.shape[1:])
    if scale < 1:
        size = [max(1, round(side * scale)) for side in grey.shape[1:]]
        grey = nn.functional.interpolate(grey[None], size, mode="bilinear", antialias=True)[0]
    rows = grey.round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
    height, width, channels = rows.shape
    lines = b"".join(b"\0" + row.tobytes() for row in rows)  # 0: each line as it is
    head = struct.pack(">IIBBBBB", width, height, 8, 2 if channels == 3 else 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        _chunk(kind, data) for kind, data in ((b"IHDR", head), (b"IDAT", zlib.compress(lines, 9)), (b"IEND", b""))
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def wav(clip: np.ndarray, sampling_rate: int) -> bytes:
    """The first `MOST_SECONDS` of a mono clip, from -1 to 1, as a WAV file of 16 bits."""
    samples = np.clip(np.asarray(clip, np.float32)[: MOST_SECONDS * sampling_rate], -1, 1)
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(sampling_rate)
        writer.writeframes((samples * 32767).astype("<i2").tobytes())
    return file.getvalue()


def pieces(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    """What each token adds to a text, its space included: tokenizers drop the space of a token that stands alone."""
    anchor = tokenizer.encode("a", add_special_tokens=False)[:1]
    before = len(tokenizer.decode(anchor, clean_up_tokenization_spaces=False))
    return [text[before:] for text in tokenizer.batch_decode([[*anchor, one] for one in ids], clean_up_tokenization_spaces=False)]
