import io
import struct
import wave
import zlib

import numpy as np
import pytest
import torch

from paredown import models, tasks
from paredown.specs import Shown
from paredown.tasks.showing import MOST_CHARACTERS, MOST_PIXELS, MOST_SECONDS, png, shortened, wav


def unpacked(data):
    """Width, height and pixels of a PNG whose lines are not filtered, by the format's definition."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, at = {}, 8
    while at < len(data):
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        body = data[at + 8 : at + 8 + length]
        assert struct.unpack(">I", data[at + 8 + length : at + 12 + length])[0] == zlib.crc32(kind + body)
        chunks[kind], at = body, at + 12 + length
    width, height, depth, colour = struct.unpack(">IIBB", chunks[b"IHDR"][:10])
    assert depth == 8
    channels = {0: 1, 2: 3}[colour]
    lines = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, 1 + width * channels)
    assert not lines[:, 0].any()
    return lines[:, 1:].reshape(height, width, channels)


@pytest.mark.parametrize("shape", [(5, 7), (1, 5, 7), (3, 5, 7), (5, 7, 3), (5, 7, 4)], ids=str)
def test_a_picture_holds_the_pixels_that_it_was_given(shape):
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    expected = {2: image[..., None], 3: image.transpose(1, 2, 0) if shape[0] in (1, 3) else image[..., :3]}[len(shape)]
    np.testing.assert_array_equal(unpacked(png(image)), expected)


def test_a_large_picture_is_made_small_and_normalised_values_are_stretched():
    found = unpacked(png(torch.linspace(-2, 3, 3 * 300 * 150).reshape(3, 300, 150)))
    assert found.shape == (MOST_PIXELS, MOST_PIXELS // 2, 3)
    assert found.min() < 5
    assert found.max() > 250


def test_what_is_no_picture_gives_none():
    assert png(np.zeros(7)) == b""
    assert png(np.zeros((5, 7, 2))) == b""


def test_a_sound_is_what_was_recorded_and_not_longer_than_it_may_be():
    clip = np.sin(np.arange(16000 * (MOST_SECONDS + 1)) / 20).astype(np.float32)
    with wave.open(io.BytesIO(wav(clip, 16000))) as read:
        assert (read.getnchannels(), read.getframerate(), read.getnframes()) == (1, 16000, 16000 * MOST_SECONDS)
        samples = np.frombuffer(read.readframes(-1), "<i2") / 32767
    np.testing.assert_allclose(samples, clip[: 16000 * MOST_SECONDS], atol=1e-4)


def test_a_long_text_ends_with_an_ellipsis():
    assert shortened("x" * MOST_CHARACTERS) == "x" * MOST_CHARACTERS
    assert shortened("x" * 2000) == "x" * (MOST_CHARACTERS - 1) + "…"


def test_a_window_is_shown_as_its_text_cut_where_each_token_is_predicted(tiny_llama_task):
    batch = tiny_llama_task.batches("held_out")[0]
    shown = tiny_llama_task.shown("held_out", batch.ids[0])
    assert len(shown.labels) == len(shown.places) == int(tiny_llama_task.units(batch)[0])
    for place, label, after in zip(shown.places, shown.labels, shown.places[1:], strict=False):
        assert shown.text[place:after] == label


def test_a_task_that_says_nothing_shows_the_index():
    task = tasks.custom(lambda model: 0.0, batches=[{"x": torch.zeros(2, 3)}], calibration=[{"x": torch.ones(2, 3)}], higher_is_better=True)
    assert task.shown("held_out", 1) == Shown(1)
    assert task.words([3]) == ["3"]


@pytest.mark.demo
@pytest.mark.parametrize(
    ("demo", "media", "label"), [("sentiment", "", "positive"), ("vision", "image/png", "Ankle boot"), ("speech", "audio/wav", None)]
)
def test_the_demos_show_texts_pictures_and_sounds(demo, media, label):
    task = tasks.load(f"demo:{demo}", models.load(f"demo:{demo}"))
    shown = [task.shown("held_out", index) for index in range(40)]
    assert {one.media for one in shown} == {media}
    assert all(bool(one.content) == bool(media) and bool(one.text) != bool(media) for one in shown)
    assert all(len(one.labels) == 1 for one in shown)
    assert label is None or label in {one.labels[0] for one in shown}
    assert max(len(one.content) for one in shown) < 16000 * 2 * MOST_SECONDS + 100
