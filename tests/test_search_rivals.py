import dataclasses
import importlib
import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from paredown.layers import find_layers
from paredown.models import described
from paredown.sizes import layer_bytes
from paredown.specs import Scheme
from paredown.tasks import Batch
from tiny_models import CASES

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
ECHO = """
import json, pathlib, shutil, sys
folder = pathlib.Path(sys.argv[1])
asked = json.loads((folder / "request.json").read_text())
shutil.copytree(folder, {to!r}, ignore=shutil.ignore_patterns("model"))
assert (folder / "model" / "model.safetensors").exists()
allocations = [{{"target": t, "bits": {{name: asked["bits"][-1] for name in asked["layers"]}}}} for t in asked["targets"]]
costs = dict(scoring_seconds=1.5, solving_seconds=0.5, forward_tokens=8, backward_tokens=8, versions={{}}, note="")
(folder / "response.json").write_text(json.dumps(dict(allocations=allocations, **costs)))
"""


@pytest.fixture
def rivals(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    module = importlib.import_module("_search_rivals")
    monkeypatch.setattr(module, "python_of", lambda _rival: Path(sys.executable))
    return module


@pytest.fixture
def loaded():
    return described("tiny", "tiny", CASES["bert"].build(), None, torch.float32)


def batches():
    ids = torch.arange(8).view(2, 4)
    return [Batch({"input_ids": ids, "attention_mask": torch.ones_like(ids)}, torch.tensor([0, 1]), (0, 1))]


def driver(rivals, monkeypatch, tmp_path, text):
    script = tmp_path / "driver.py"
    script.write_text(text)
    monkeypatch.setattr(rivals, "DRIVERS", {"modelopt": str(script)})


def test_a_rival_is_asked_for_the_linear_layers_and_its_widths_come_back_as_schemes(rivals, monkeypatch, tmp_path, loaded):
    driver(rivals, monkeypatch, tmp_path, ECHO.format(to=str(tmp_path / "seen")))
    layers = find_layers(loaded.model)
    found = rivals.allocations("modelopt", loaded, layers, batches(), [2.5, 4.0], bits=(2, 4), group_size=16)
    linear = {layer.name for layer in layers if layer.kind != "embedding"}
    assert found.schemes == {target: dict.fromkeys(linear, Scheme.parse("int4g16")) for target in (2.5, 4.0)}
    assert found.costs.scoring_seconds == 1.5
    asked = json.loads((tmp_path / "seen" / "request.json").read_text())
    assert {name for group in asked["groups"] for name in group} == linear
    assert max(map(len, asked["groups"])) == 3  # query, key, value
    assert torch.equal(load_file(tmp_path / "seen" / "batches.safetensors")["0.inputs.input_ids"], batches()[0].inputs["input_ids"])


def test_plans_of_a_budget_hold_it_at_every_width_of_the_embeddings(rivals, monkeypatch, tmp_path, loaded):
    schemes = {bits: Scheme.parse(f"int{bits}g16") for bits in rivals.BITS}
    layers = find_layers(loaded.model)
    linear = [layer for layer in layers if layer.kind != "embedding"]
    for bits in rivals.BITS[:-1]:
        exact = sum(layer_bytes(layer, schemes[bits]) for layer in linear)
        assert rivals.mean_bits(linear, schemes, exact) == pytest.approx(bits)
    assert rivals.mean_bits(linear, schemes, sum(layer_bytes(layer, schemes[2]) for layer in linear) - 1) is None
    driver(rivals, monkeypatch, tmp_path, ECHO.format(to=str(tmp_path / "seen")))
    budget = sum(layer_bytes(layer, schemes[4]) for layer in layers) + 100
    found, _ = rivals.plans("modelopt", loaded, layers, batches(), [budget], 100, group_size=16)
    targets = json.loads((tmp_path / "seen" / "request.json").read_text())["targets"]
    assert len(found[budget]) == len(targets) >= 3
    assert any(target == pytest.approx(4) for target in targets)


def test_a_missing_environment_says_how_to_make_it(rivals, monkeypatch, loaded):
    monkeypatch.setattr(rivals, "python_of", lambda rival: BENCHMARKS / "nowhere" / rival / "bin" / "python")
    with pytest.raises(rivals.MissingRivalError, match=r"run python benchmarks/rivals/install.py autoround"):
        rivals.allocations("autoround", loaded, find_layers(loaded.model), batches(), [3.0])


def test_a_rival_that_takes_too_long_is_stopped_and_one_that_fails_shows_its_error(rivals, monkeypatch, tmp_path, loaded):
    driver(rivals, monkeypatch, tmp_path, "import time; time.sleep(60)")
    with pytest.raises(rivals.RivalError, match="stopped after"):
        rivals.allocations("modelopt", loaded, find_layers(loaded.model), batches(), [3.0], timeout_seconds=0.5)
    driver(rivals, monkeypatch, tmp_path, "raise SystemExit('no such format')")
    with pytest.raises(rivals.RivalError, match="no such format"):
        rivals.allocations("modelopt", loaded, find_layers(loaded.model), batches(), [3.0])


def test_labels_are_needed(rivals, loaded):
    unlabelled = [dataclasses.replace(batch, targets=None) for batch in batches()]
    with pytest.raises(rivals.RivalError, match="labels"):
        rivals.allocations("modelopt", loaded, find_layers(loaded.model), unlabelled, [3.0])
