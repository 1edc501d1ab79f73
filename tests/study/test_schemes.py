"""Bits, sparsity and rank in one study: priced, searched, measured, kept, exported."""

from __future__ import annotations

import pytest
import torch

from paredown.errors import ParedownError
from paredown.export import compressed_tensors, native
from paredown.methods import dequantize
from paredown.specs import Candidate, Plan, Scheme, StudyConfig
from paredown.study import Study
from paredown.study.steps import UniformSizes

SCHEMES = ("int4g64", "nf4g64", "int4g64-gptq+2:4-mfac", "int3g64+eora8:8", "int3g64-gptq", "int8g64a8", "nvfp4a8static")


@pytest.fixture(scope="module")
def config():
    return StudyConfig(model="tiny", task="austen", schemes=SCHEMES, budgets=(3.5,), hessian_seconds=0, seed=3)


@pytest.fixture(scope="module")
def mixed(llama, austen, config, tmp_path_factory):
    study = Study(tmp_path_factory.mktemp("mixed"), config, model=llama, task=austen)
    study.run()
    return study


def variants(study):
    return sorted((study.folder / "artifacts").glob("variant-*.safetensors"))


def test_every_scheme_is_priced_and_every_plan_measured(mixed):
    record = mixed.record()
    assert record.state == "done"
    assert record.info.export_format == "paredown"
    assert set(record.measurements) == set(record.plans)
    for layer in record.layers:
        assert {str(scheme) for scheme in record.candidates[layer.name]} == {"keep", *SCHEMES}
    names = {plan.found_by for plan in record.plans.values()}
    assert {f"uniform {scheme}" for scheme in SCHEMES} | {"searched at 3.5 bits"} <= names


def test_an_embedding_gets_what_needs_no_inputs_and_it_is_said(mixed):
    record = mixed.record()
    [table] = [layer for layer in record.layers if layer.kind == "embedding"]
    candidate = record.candidates[table.name][Scheme.parse("int3g64-gptq")]
    assert str(candidate.effective) == "int3g64-mse"
    assert "no input second moment" in candidate.note


def test_what_needs_the_inputs_is_kept_once_a_layer_and_scheme(mixed):
    applied = {(c.layer, c.effective) for c in mixed.store.payloads(Candidate) if c.effective.needs_calibration}
    assert len(variants(mixed)) == len(applied) > 0


def difference(found, expected):
    return (found - expected).norm() / expected.norm()


# where inputs are rounded, float32's own noise may turn the code of an input
@pytest.mark.parametrize(
    ("names", "tolerance"), [(SCHEMES, 1e-2), ([name for name in SCHEMES if Scheme.parse(name).activation is None], 1e-6)]
)
def test_a_plan_of_ones_own_is_measured_and_exported_to_the_byte(mixed, tmp_path, names, tolerance):
    record = mixed.record()
    schemes = {layer.name: Scheme.parse(names[index % len(names)]) for index, layer in enumerate(record.layers)}
    plan = mixed.measure(schemes)
    mixed.wait()
    assert plan.digest in mixed.record().measurements
    folder = mixed.export(plan, tmp_path / "out")
    assert (folder / native.WEIGHTS).stat().st_size == plan.bytes
    reloaded = native.load(folder)
    inputs = {"input_ids": torch.arange(3, 20)[None]}
    session = mixed.session()
    with torch.no_grad(), session.variants.applied(plan.schemes):
        expected = session.loaded.model(**inputs).logits
    assert difference(reloaded(**inputs).logits.detach(), expected) < tolerance


def test_a_study_that_is_opened_again_finds_its_weights_or_makes_the_same_ones(mixed, llama, austen):
    layer = next(layer for layer in mixed.record().layers if layer.kind == "linear")
    again = Study(mixed.folder, model=llama, task=austen).session()
    for text in ("int3g64-gptq", "int3g64+eora8:8", "int4g64-gptq+2:4-mfac", "nvfp4a8static"):
        kept = dequantize(again.kept(layer, Scheme.parse(text)))
        for file in variants(mixed):
            file.unlink()
        assert torch.equal(dequantize(again.kept(layer, Scheme.parse(text))), kept)
        assert len(variants(mixed)) == 1


def test_a_plan_with_a_scheme_that_was_never_priced_is_exported_too(mixed, tmp_path):
    info, layer = mixed.record().info, next(layer for layer in mixed.record().layers if layer.kind == "linear" and not layer.fused_with)
    plan = Plan(info.model, info.digest, {layer.name: Scheme.parse("int2g64sym-gptq")}, 0)
    mixed.export(plan, tmp_path / "native", export_format="paredown")
    mixed.export(plan, tmp_path / "plain", export_format="compressed-tensors")
    assert (tmp_path / "plain" / compressed_tensors.WEIGHTS).is_file()


def test_a_format_that_holds_a_scheme_for_no_layer_is_refused(llama, austen, tmp_path):
    config = StudyConfig(model="tiny", task="austen", schemes=("int4g64sym", "2:4"), export_format="compressed-tensors")
    with pytest.raises(ParedownError, match=r"hold 2:4 for no layer.*no pruned weights.*export format paredown"):
        Study(tmp_path / "study", config, model=llama, task=austen).run()


def plan_of(scheme, size):
    return Plan("tiny", "", {}, size, found_by=f"uniform {scheme}")


@pytest.mark.parametrize(
    ("sizes", "bits", "size"),
    [
        ({"int2g64": 20, "int4g64": 40}, (2, 4), (20, 40)),
        ({"int4g64": 40, "int4g64+2:4": 33, "int2g64": 20, "int3g64": 32}, (2, 3, 4), (20, 32, 40)),
        ({"int3g64": 32, "int3g64+eora8": 35, "int4g64": 40}, (3, 4), (32, 40)),
        ({"int3g64+eora8": 35, "int4g64+eora8": 43, "int2+eora99": 50}, (2,), (50,)),
        ({"int4g64": 40, "nf4g64": 39}, (4,), (39,)),
    ],
)
def test_budgets_are_counted_between_uniform_plans_that_grow(sizes, bits, size):
    found = UniformSizes.of(plan_of(*pair) for pair in sizes.items())
    assert found.bits == bits
    assert found.bytes == size


def test_what_was_kept_is_exported_without_the_task(mixed, llama, tmp_path):
    info, layer = mixed.record().info, next(layer for layer in mixed.record().layers if layer.kind == "linear")
    scheme = Scheme.parse("int3g64+eora8:8")
    expected = dequantize(mixed.session().kept(layer, scheme))
    folder = Study(mixed.folder, model=llama).export(Plan(info.model, info.digest, {layer.name: scheme}, 0), tmp_path / "out")
    assert torch.equal(native.load(folder).get_submodule(layer.name).weight, expected)
