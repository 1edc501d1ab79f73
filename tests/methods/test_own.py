"""Roundings of the user's own: they take part like ours, and what they get wrong is said."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

import second_moments
from paredown.errors import ParedownError
from paredown.methods import Quantized, Statistics, compress, dequantize, quantize, quantize_with
from paredown.methods.own import forget, rounding
from paredown.sizes import fit
from paredown.specs import LayerRef, Scheme, WeightFormat

WEIGHT = torch.randn(24, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def _names() -> Iterator[None]:
    yield
    for name in ("mine", "other"):
        forget(name)


def nearest(weight: Tensor, format: WeightFormat, seen: Statistics | None) -> Quantized:
    return quantize(weight, format)


def test_a_scheme_names_it_and_reads_back() -> None:
    rounding("mine")(nearest)
    scheme = Scheme.parse("int3g32-mine+2:4")
    assert (scheme.rounding, str(scheme), scheme.needs_calibration) == ("mine", "int3g32-mine+2:4", False)


def test_the_nearest_codes_under_another_name_are_the_nearest_codes() -> None:
    rounding("mine")(nearest)
    for text in ("int4g32{}", "int3g32sym{}", "int4n8{}", "int4g32{}+2:4", "int3g32{}+svd4"):
        ours, own = (compress(WEIGHT, Scheme.parse(text.format(name))) for name in ("", "-mine"))
        assert torch.equal(dequantize(ours), dequantize(own))


def test_a_calibrated_one_gets_the_moment_and_an_embedding_another_rounding() -> None:
    given: list[Statistics | None] = []

    @rounding("mine", calibrated=True)
    def watching(weight: Tensor, format: WeightFormat, seen: Statistics | None) -> Quantized:
        given.append(seen)
        return quantize(weight, format)

    scheme = Scheme.parse("int4g32-mine")
    assert scheme.needs_calibration
    with pytest.raises(ParedownError, match="calibrate the layer"):
        compress(WEIGHT, scheme)
    seen = Statistics(second_moments.moment_of(64))
    compress(WEIGHT, scheme, seen)
    assert given == [seen]
    assert str(fit(scheme, LayerRef("e", "embedding", "embedding", "", (24, 64), "float32"))[0]) == "int4g32-mse"


def test_names_are_small_letters_not_ours_and_given_once() -> None:
    for name in ("gptq", "Mine", "a1", ""):
        with pytest.raises(ParedownError, match="small letters"):
            rounding(name)
    rounding("mine")(nearest)
    with pytest.raises(ParedownError, match="registered already"):
        rounding("mine")
    forget("mine")
    with pytest.raises(ParedownError, match="register one of your own"):
        Scheme.parse("int4g32-mine")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda made: made.codes, "Tensor"),
        (lambda made: replace(made, format=WeightFormat(3, 32)), "int3g32"),
        (lambda made: replace(made, codes=made.codes[:, :32], scales=made.scales[:, :1]), r"\[24, 32\]"),
        (lambda made: replace(made, codes=made.codes + 100), "codes below 16"),
        (lambda made: replace(made, scales=made.scales * torch.inf), "NaN or infinite"),
        (lambda made: replace(made, zero_points=made.zero_points + 1), "pruned weights must stay"),
    ],
)
def test_what_it_gets_wrong_is_said(wrong, said: str) -> None:
    rounding("mine")(lambda weight, format, seen: wrong(quantize(weight, format)))
    with pytest.raises(ParedownError, match=said):
        compress(WEIGHT, Scheme.parse("int4g32-mine+2:4"))


def test_it_can_not_change_the_weight_that_others_read() -> None:
    @rounding("mine")
    def careless(weight: Tensor, format: WeightFormat, seen: Statistics | None) -> Quantized:
        weight.zero_()
        return quantize(weight, format)

    before = WEIGHT.clone()
    compress(WEIGHT, Scheme.parse("int4g32-mine"))
    assert torch.equal(WEIGHT, before)


def test_scales_and_zero_points_are_enough() -> None:
    @rounding("mine")
    def doubled(weight: Tensor, format: WeightFormat, seen: Statistics | None) -> Quantized:
        def find(grid, groups):
            scale, zero = grid.span(groups)
            return 2 * scale, zero

        return quantize_with(find, weight, format)

    errors = [
        float((dequantize(compress(WEIGHT, Scheme.parse(text))) - WEIGHT).square().mean())
        for text in ("int4g32-mine", "int4g32", "int3g32")
    ]
    assert errors[1] < errors[0]
    assert errors[0] == pytest.approx(errors[2], rel=0.5)  # twice the step is about one bit less
