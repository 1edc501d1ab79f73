from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from paredown.errors import ParedownError
from paredown.models import LoadedModel
from paredown.tasks import LanguageModelling, Task
from paredown.tasks.base import IGNORED
from paredown.tasks.language import windows

TEXT = "It is a truth universally acknowledged, that a single man in possession of a good fortune, must be in want of a wife. " * 12


@given(st.integers(2, 9), st.data())
def test_each_token_is_counted_once_by_the_first_window_that_can(window: int, data: st.DataObject) -> None:
    stride = data.draw(st.integers(1, window))
    length = data.draw(st.integers(window, 40))
    inputs, targets = windows(torch.arange(length), window, stride)
    seen: set[int] = set()
    for row, wanted in zip(inputs.tolist(), targets.tolist(), strict=True):
        for position, target in enumerate(wanted):
            fresh = position < window - 1 and row[position + 1] not in seen
            assert target == (row[position + 1] if fresh else IGNORED)
        seen.update(row[1:])
    skipped = set(inputs[1:, 0].tolist()) if stride == window else set()
    assert seen == set(range(1, int(inputs.max()) + 1)) - skipped


@pytest.mark.parametrize("stride", [None, 16])
def test_perplexity_is_that_of_a_plain_loop(tiny_llama: LoadedModel, stride: int | None) -> None:
    task = LanguageModelling(tiny_llama, calibration=TEXT, held_out=TEXT, window=32, stride=stride, batch_size=3)
    batches = task.batches("held_out", 7)
    total, count = 0.0, 0
    tokens = tiny_llama.processor(TEXT)["input_ids"]
    end = 0
    with torch.no_grad():
        for k in range(7):
            start = k * (stride or 32)
            row = tokens[start : start + 32]
            logits = tiny_llama.model(input_ids=torch.tensor([row])).logits[0].double().log_softmax(-1)
            for position in range(31):
                if start + position + 1 > end:
                    total -= float(logits[position, row[position + 1]])
                    count += 1
            end = start + 31
        predictions = [task.predictions(tiny_llama.model, batch) for batch in batches]
        scores = task.scores(tiny_llama.model, batches, predictions)
        assert task.scores(tiny_llama.model, batches).value() == pytest.approx(scores.value())
    assert len(scores.numerator) == 7
    assert scores.denominator.sum() == count == sum(int(task.units(batch).sum()) for batch in batches)
    assert scores.value() == pytest.approx(math.exp(total / count), rel=1e-5)


def test_the_fixture_model_knows_jane_austen(tiny_llama: LoadedModel, tiny_llama_task: Task) -> None:
    with torch.no_grad():
        assert tiny_llama_task.scores(tiny_llama.model, tiny_llama_task.batches("held_out")).value() < 80


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"window": 1}, "window must be from 2 to 256 tokens for .*tiny-llama-austen, got 1"),
        ({"window": 257}, "got 257"),
        ({"stride": 33}, "stride must be from 1 to the window's 32 tokens, got 33"),
        ({"stride": 0}, "got 0"),
        ({"held_out": "too short"}, "at least one window of 32 tokens in the held_out text, got"),
    ],
    ids=["window of one", "window past the context", "stride past the window", "no stride", "short text"],
)
def test_bad_arguments_are_refused(tiny_llama: LoadedModel, changes: dict[str, object], message: str) -> None:
    given_arguments = {"calibration": TEXT, "held_out": TEXT, "window": 32}
    with pytest.raises(ParedownError, match=message):
        LanguageModelling(tiny_llama, **{**given_arguments, **changes})  # pyright: ignore[reportArgumentType]


def test_a_model_without_tokenizer_is_refused(tiny_llama: LoadedModel) -> None:
    with pytest.raises(ParedownError, match="expected a tokenizer"):
        LanguageModelling(replace(tiny_llama, processor=None), calibration=TEXT, held_out=TEXT)
