r"""A decoder's cache of keys and values at 8 or 4 bits, emulated: what attention reads are the rounded ones.

Each token's keys and values of each head are rounded in groups of channels, asymmetric, to the grid over their own range: group-wise
\(\hat k = s (c - z)\) with codes c, a whole zero point z of as many bits and a float16 scale s. Nothing is calibrated.

Tokens are rounded one by one, and each is read rounded from the start, by its own query too. So what a token leaves in the cache depends on
nothing that comes after, and one pass over a whole text scores it as a decoder would that writes each token to the cache and then reads the
cache. KIVI (Liu et al., 2024) rounds keys by channel, over groups of tokens, and keeps the last tokens in full until a group is
complete: it errs less at 2 bits, but what a query sees then depends on how far the text has come, which no single pass can score.

Keys are rounded as they are cached, in most families after their rotary embedding. In encoder-decoders (Whisper, T5) the keys and values
of cross-attention are cached once for each position of the encoder, and rounded alike.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from transformers import Cache, DynamicCache, EncoderDecoderCache
from typing_extensions import override

from paredown.errors import ParedownError
from paredown.methods.activations import quantize_per_token

BITS = (8, 4)
GROUP = 64
"""Channels of a head that share a scale; a head that 64 does not divide is one group."""


@dataclass(slots=True)
class CacheRecord:
    """What a cache held, as far as the model has run.

    Attributes:
        bits: Width of a key's or value's code.
        widths: Of each layer that caches a token of the text: heads times channels of a key and a value, each with its groups.
        cross_widths: The same of the layers that cache a position of the encoder.
    """

    bits: int
    widths: dict[int, tuple[tuple[int, int], ...]] = field(default_factory=dict)
    cross_widths: dict[int, tuple[tuple[int, int], ...]] = field(default_factory=dict)

    @property
    def bytes_per_token(self) -> float:
        """Bytes that one more token takes in the cache of all layers: codes, scales and zero points."""
        return _bytes(self.widths, self.bits)

    @property
    def bytes_per_encoder_position(self) -> float:
        """The same for a position of the encoder; 0 where there is no cross-attention."""
        return _bytes(self.cross_widths, self.bits)

    @property
    def half_precision_bytes_per_token(self) -> float:
        """Bytes that one more token takes in a cache of 16 bits."""
        return sum(2 * numbers for tensors in self.widths.values() for numbers, _ in tensors)


def _bytes(widths: dict[int, tuple[tuple[int, int], ...]], bits: int) -> float:
    return sum(numbers * bits / 8 + groups * (2 + bits / 8) for tensors in widths.values() for numbers, groups in tensors)


def round_states(states: Tensor, bits: int) -> Tensor:
    """Keys or values as the cache gives them back.

    Args:
        states: [samples, heads, tokens, channels].
        bits: 8 or 4.
    """
    width = _group(states.shape[-1])
    return quantize_per_token(states.unflatten(-1, (-1, width)), bits, symmetric=False).flatten(-2)


class RoundedCache(DynamicCache):
    """A dynamic cache that keeps, and gives back, rounded keys and values.

    Args:
        record: Its bits; the shapes that were cached are noted there.
        config: The model's configuration, for layers with a sliding window.
        cross: Whether it is that of cross-attention.
    """

    def __init__(self, record: CacheRecord, config: Any, *, cross: bool = False) -> None:
        super().__init__(config=config)
        self._bits, self._widths = record.bits, record.cross_widths if cross else record.widths

    @override
    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **options: Any) -> tuple[Tensor, Tensor]:
        self._widths[layer_idx] = tuple(
            (states.shape[1] * states.shape[3], states.shape[1] * (states.shape[3] // _group(states.shape[3])))
            for states in (key_states, value_states)
        )
        keys, values = round_states(key_states, self._bits), round_states(value_states, self._bits)
        return super().update(keys, values, layer_idx, *args, **options)


@contextmanager
def rounded_cache(model: nn.Module, bits: int) -> Iterator[CacheRecord]:
    """Let a decoder read its keys and values from a rounded cache, whoever calls it and whether they ask for a cache or not.

    Args:
        model: A model that generates; what is called is its `forward`, or `generate`.
        bits: 8 or 4.

    Yields:
        What is cached, filled as the model runs.

    Raises:
        ParedownError: If the model keeps no such cache, a full cache that holds tokens is given to it, or it ran and nothing was cached.
    """
    check(model, bits)
    config: Any = model.config
    record = CacheRecord(bits)
    ran = False

    def give(module: nn.Module, arguments: tuple[Any, ...], options: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        nonlocal ran
        ran = True
        given = options.get("past_key_values")
        if _is_rounded(given):
            return arguments, options
        if isinstance(given, Cache) and given.get_seq_length() > 0:
            raise ParedownError("the cache that was given holds tokens in full precision; begin the text anew while the cache is rounded")
        made: Cache = RoundedCache(record, config)
        if config.is_encoder_decoder:
            made = EncoderDecoderCache(made, RoundedCache(record, config, cross=True))
        return arguments, {**options, "past_key_values": made, "use_cache": True}

    handle = model.register_forward_pre_hook(give, with_kwargs=True)
    try:
        yield record
    finally:
        handle.remove()
    if ran and not record.widths:
        raise ParedownError(
            f"{type(model).__name__} ran and cached no keys and values, so that there is nothing to round; leave kv_cache_bits out"
        )


def check(model: nn.Module, bits: int) -> None:
    """Refuse a model without a cache of keys and values.

    Raises:
        ParedownError: If it is an encoder, or generates nothing for another reason, or the width is neither 8 nor 4.
    """
    if bits not in BITS:
        raise ParedownError(f"a cache of keys and values has {' or '.join(map(str, BITS))} bits, got {bits}")
    generates = callable(getattr(model, "can_generate", None)) and model.can_generate()  # pyright: ignore[reportCallIssue]
    if not generates or "past_key_values" not in inspect.signature(model.forward).parameters:
        raise ParedownError(
            f"{type(model).__name__} does not generate token by token, so that it keeps no cache of keys and values; leave kv_cache_bits out"
        )


def _group(channels: int) -> int:
    return GROUP if channels % GROUP == 0 else channels


def _is_rounded(cache: object) -> bool:
    return isinstance(cache, RoundedCache) or (
        isinstance(cache, EncoderDecoderCache) and isinstance(cache.self_attention_cache, RoundedCache)
    )
