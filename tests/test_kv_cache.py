"""A rounded cache: one pass over a text scores as a decoder does token by token."""

from __future__ import annotations

import pytest
import torch
import transformers as tf
from transformers import DynamicCache

from paredown.errors import ParedownError
from paredown.folding import relative_change
from paredown.kv_cache import RoundedCache, round_states, rounded_cache
from tiny_models import CASES, _case, _decoder, _tokens

DECODERS = ("llama", "gpt2", "qwen3", "whisper", "t5")
SLIDING = _case(tf.MistralForCausalLM, tf.MistralConfig, _tokens, **_decoder, sliding_window=3, tie_word_embeddings=False)


def ready(family):
    """A model in float64, and inputs without padding, those of the encoder first."""
    case = SLIDING if family == "sliding" else CASES[family]
    inputs = {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in case.inputs().items()}
    inputs.pop("attention_mask", None)
    return case.build().double().requires_grad_(False), inputs


def text_of(inputs):
    return "decoder_input_ids" if "decoder_input_ids" in inputs else "input_ids"


def by_the_channel(states, bits):
    """The scheme in words: minimum and maximum, widened to hold zero, in 2^bits - 1 steps."""
    rounded = torch.empty_like(states)
    for place in torch.cartesian_prod(*map(torch.arange, states.shape[:3])):
        values = states[tuple(place)].float()
        scale = ((values.max().clamp(min=0) - values.min().clamp(max=0)) / (2**bits - 1)).half().float()
        zero = (-values.min().clamp(max=0) / scale).round()
        rounded[tuple(place)] = ((values / scale).round() + zero).clamp(0, 2**bits - 1).sub(zero) * scale
    return rounded


@pytest.mark.parametrize("bits", [8, 4])
def test_each_head_of_each_token_has_its_own_grid(bits):
    states = torch.randn(2, 3, 5, 16)
    assert torch.allclose(round_states(states, bits), by_the_channel(states, bits))
    wide = torch.randn(1, 2, 3, 128)
    apart = torch.cat([by_the_channel(part, bits) for part in wide.split(64, -1)], -1)
    assert torch.allclose(round_states(wide, bits), apart)
    assert len(round_states(torch.randn(1, 1, 1, 100), 4).unique()) <= 16  # 64 does not divide it


@pytest.mark.parametrize("family", [*DECODERS, "sliding"])
def test_one_pass_scores_as_a_decoder_does_token_by_token(family):
    model, inputs = ready(family)
    text = inputs.pop(text_of(inputs))
    name = text_of(CASES.get(family, SLIDING).inputs())
    with rounded_cache(model, 4):
        whole = model(**inputs, **{name: text}, use_cache=False).logits
        steps, cache = [], None
        for position in range(text.shape[1]):
            output = model(**inputs, **{name: text[:, position : position + 1]}, past_key_values=cache, use_cache=True)
            cache = output.past_key_values
            steps.append(output.logits)
    assert relative_change(whole, torch.cat(steps, 1)) < 1e-6
    assert relative_change(whole, model(**inputs, **{name: text}).logits) > 1e-4  # and not because nothing was rounded


@pytest.mark.parametrize("family", DECODERS)
def test_fewer_bits_err_more_and_none_err_not_at_all(family):
    model, inputs = ready(family)
    before = model(**inputs).logits
    errors = []
    for bits in (8, 4):
        with rounded_cache(model, bits):
            errors.append(relative_change(before, model(**inputs).logits))
    assert 0 < errors[0] < errors[1] / 4
    assert torch.equal(before, model(**inputs).logits)


def test_generation_reads_the_rounded_cache():
    model, inputs = ready("llama")
    prompt = inputs["input_ids"][:1]
    with rounded_cache(model, 4):
        written = model.generate(prompt, max_new_tokens=6, do_sample=False, eos_token_id=None)
        greedy = prompt
        for _ in range(6):
            greedy = torch.cat([greedy, model(greedy).logits[:, -1:].argmax(-1)], 1)
    assert torch.equal(written, greedy)


def test_bytes_count_codes_scales_and_zero_points_of_all_layers():
    model, inputs = ready("llama")  # 2 layers, 2 heads of keys and values with 16 channels each
    for bits, each in ((8, 16 + 2 + 1), (4, 8 + 2 + 0.5)):
        with rounded_cache(model, bits) as cache:
            model(**inputs)
        assert cache.bytes_per_token == 2 * 2 * 2 * each
        assert cache.bytes_per_encoder_position == 0
        assert cache.half_precision_bytes_per_token == 2 * 2 * 2 * 32
    model, inputs = ready("whisper")  # 2 layers, 4 heads of 16
    with rounded_cache(model, 8) as cache:
        model(**inputs)
    assert cache.bytes_per_token == cache.bytes_per_encoder_position == 2 * 2 * 4 * 19


@pytest.mark.parametrize("family", ["bert", "vit", "wav2vec2", "dinov2"])
def test_a_model_that_keeps_no_cache_is_refused(family):
    model, _ = ready(family)
    with pytest.raises(ParedownError, match="does not generate token by token, so that it keeps no cache"), rounded_cache(model, 8):
        raise AssertionError


def test_other_widths_and_a_full_cache_are_refused_and_the_model_is_left_as_it_was():
    model, inputs = ready("llama")
    with pytest.raises(ParedownError, match="has 8 or 4 bits, got 3"), rounded_cache(model, 3):
        raise AssertionError
    full = model(**inputs, use_cache=True).past_key_values
    with pytest.raises(ParedownError, match="holds tokens in full precision; begin the text anew"), rounded_cache(model, 8):
        model(inputs["input_ids"][:, -1:], past_key_values=full)
    assert not model._forward_pre_hooks
    with rounded_cache(model, 8):
        made = model(**inputs, past_key_values=DynamicCache(), use_cache=True).past_key_values  # as generation begins
    assert isinstance(made, RoundedCache)
