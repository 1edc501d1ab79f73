"""HAWQ-V3's published inputs and its published allocations (Yao et al., 2021); `tests/reference/hawq_v3.json` says where they are from."""

import json
from pathlib import Path

import numpy as np
import pytest

from paredown.record import MatrixEstimates
from paredown.search import Problem, best_plan
from paredown.specs import Candidate, LayerRef, Scheme, TraceEstimate

MODELS = json.loads((Path(__file__).parents[1] / "reference" / "hawq_v3.json").read_text())["models"]
LOW, HIGH = Scheme.parse("int4a4"), Scheme.parse("int8a8")
RESOURCES = {"modelsize": "bytes", "bops": "bit_operations", "latency": "seconds"}
SUBOPTIMAL = ("resnet50", "modelsize_0.25")  # what was published costs 0.8232 less than 4 bits everywhere, the best 0.8314


def problem_of(model):
    """Both widths of every layer, with the layers tied that share a residual sum; sizes in bytes, at half a byte a 4-bit weight."""
    names = [f"layer{index}" for index in range(len(model["trace"]))]
    counts = [round(millions * 2**20) for millions in model["params_M"]]
    partner = dict(model["tied"]) | {second: first for first, second in model["tied"]}
    layers = [
        LayerRef(name, "linear", "conv", "", (count, 1), "float32", fused_with=(names[partner[index]],) if index in partner else ())
        for index, (name, count) in enumerate(zip(names, counts, strict=True))
    ]
    candidates, curvature = {}, {}
    for index, (name, count) in enumerate(zip(names, counts, strict=True)):
        candidates[name] = {
            scheme: Candidate(name, scheme, scheme, count * bits // 8, 0.0, 0.0, 0.0, weight_error=model[f"d{bits}"][index])
            for scheme, bits in ((LOW, 4), (HIGH, 8))
        }
        trace = count * model["trace"][index]  # theirs are averages over the weights
        curvature[name] = MatrixEstimates(TraceEstimate(name, "hessian", trace, 0.0, 0.0, 1, 1, 0))
    columns = {
        "bit_operations": {name: {LOW: model["bops"][i] / 64, HIGH: model["bops"][i] / 16} for i, name in enumerate(names)},
        "seconds": {name: {LOW: model["lat4"][i], HIGH: model["lat8"][i]} for i, name in enumerate(names)},
    }
    return names, Problem.of(0, layers, candidates, curvature=curvature, columns=columns)


def gain(model, bits):
    """Their objective: what the layers of 8 bits save."""
    return sum(
        trace * (high - low) for trace, high, low, bit in zip(model["trace"], model["d8"], model["d4"], bits, strict=True) if bit == "1"
    )


@pytest.mark.parametrize(("name", "key"), [(name, key) for name, model in MODELS.items() for key in model["published"]])
def test_the_published_allocation_or_a_better_one(name, key):
    model, published = MODELS[name], MODELS[name]["published"][key]
    layers, problem = problem_of(model)
    resource = RESOURCES[key.split("_")[0]]
    share = float(key.split("_")[1])
    amounts = problem.amounts(resource)
    low, high = (float(np.sum([ends(amount) for amount in amounts])) for ends in (np.min, np.max))
    budget = low + share * (high - low)
    found = best_plan(problem, budget, objective="trace", resource=resource)
    assert found.bound == found.cost
    bits = "".join("1" if found.schemes[layer] == HIGH else "0" for layer in layers)
    taken = sum(
        amount[offered.index(found.schemes[group[0]])]
        for amount, offered, group in zip(amounts, problem.schemes, problem.groups, strict=True)
    )
    assert taken <= budget
    if (name, key) == SUBOPTIMAL:
        assert gain(model, published) == pytest.approx(-0.82323, abs=5e-6)
        assert gain(model, bits) == pytest.approx(-0.83139, abs=5e-6)
    else:
        assert bits == published


def test_all_eighteen_are_there():
    assert sum(len(model["published"]) for model in MODELS.values()) == 18
