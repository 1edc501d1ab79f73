from __future__ import annotations

import pytest
import torch

from paredown.apply import Variants
from paredown.curvature import input_moment
from paredown.curvature.surface import LossSurface
from paredown.errors import ParedownError
from paredown.evaluation import output_errors
from paredown.layers import find_layers
from paredown.specs import KEEP, Scheme
from paredown.tasks import custom
from tiny_models import CASES

SCHEMES = [Scheme.parse(text) for text in ("int3g32", "int4g64", "2:4", "keep")]


@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_errors_are_those_of_outputs_on_the_data(name):
    model, inputs = CASES[name].build(), CASES[name].inputs()
    del inputs["attention_mask"]
    task = custom(lambda model: 1.0, batches=[inputs], calibration=[inputs], higher_is_better=True)
    layers = find_layers(model)
    moments = dict(zip([layer.name for layer in layers], input_moment(LossSurface.of(model, task), layers).moments, strict=True))
    variants = Variants(model, layers)
    table = output_errors(variants, layers, moments, SCHEMES)
    for layer in layers:
        if name == "gpt2" and layer.tied_to:  # read as a table and as a matrix, on other inputs
            continue
        seen = []
        module = model.get_submodule(layer.name)
        handle = module.register_forward_pre_hook(lambda module, arguments, seen=seen: seen.append(arguments[0]))
        with torch.no_grad():
            model(**inputs)
            handle.remove()
            bias = getattr(module, "bias", None)
            expected = module(seen[0]) - (0 if bias is None else bias)
            for scheme in SCHEMES:
                with variants.applied({layer.name: scheme}):
                    got = module(seen[0]) - (0 if bias is None else bias)
                direct = float((got - expected).double().square().sum() / expected.double().square().sum())
                assert table[layer.name][scheme] == pytest.approx(direct, rel=1e-3, abs=1e-9), (layer.name, scheme)
        assert table[layer.name][KEEP] == 0


def test_rounded_inputs_are_refused():
    model = CASES["bert"].build()
    layers = find_layers(model)
    with pytest.raises(ParedownError, match="int8a8 rounds inputs"):
        output_errors(Variants(model, layers), layers, {}, [Scheme.parse("int8a8")])
