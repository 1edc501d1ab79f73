"""A study on a shrunk model, and exports from one."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from transformers import AutoModelForCausalLM

from paredown import models, tasks
from paredown.errors import ParedownError
from paredown.export import native
from paredown.specs import StudyConfig
from paredown.structure import Fractions, shrink
from paredown.study import Study


@pytest.fixture(scope="module")
def folders(tiny_llama, tiny_llama_task, tmp_path_factory):
    """A shrunk model that plain transformers loads, and one that it doesn't."""
    wide = dataclasses.replace(tiny_llama, model=copy.deepcopy(tiny_llama.model))
    even = shrink(wide, tiny_llama_task, drop_blocks=2, calibration=1, held_out=1)
    uneven = shrink(wide, tiny_llama_task, drop_blocks=2, fractions=Fractions(qk=0.5, vo=0.5), calibration=1, held_out=1)
    root = tmp_path_factory.mktemp("shrunk")
    return {True: even.save(root / "even"), False: uneven.save(root / "uneven")}


def study_of(folder, place, export_format="auto"):
    loaded = models.load(str(folder))
    text = "It is a truth universally acknowledged. " * 60
    task = tasks.LanguageModelling(
        loaded, calibration=text, held_out=text[7:], window=32, default_samples={"calibration": 2, "held_out": 2}
    )
    config = StudyConfig(
        model=str(folder), task="mine", schemes=("int8g32sym", "int4g32sym"), hessian_seconds=0, export_format=export_format
    )
    study = Study(place, config, model=loaded, task=task)
    return study, study.run()


@pytest.mark.parametrize("even", [True, False], ids=["even", "uneven"])
def test_a_study_runs_on_it_and_its_plans_are_exported(folders, even, tmp_path):
    study, record = study_of(folders[even], tmp_path / "study")
    assert record.state == "done"
    assert record.info.export_format == ("compressed-tensors" if even else "paredown")
    assert any(layer.name.endswith("q_proj" if even else "q_proj.kept") and layer.role == "q" for layer in record.layers)
    plan = study.choose(bits=4)
    folder = study.export(plan, tmp_path / "export")
    assert sum(file.stat().st_size for file in folder.glob("*.safetensors")) == plan.bytes
    model = AutoModelForCausalLM.from_pretrained(folder) if even else native.load(folder)
    ids = torch.arange(3, 20)[None]
    with torch.no_grad():
        assert model(input_ids=ids).logits.isfinite().all()


def test_compressed_tensors_refuses_shapes_that_a_config_cannot_say(folders, tmp_path):
    with pytest.raises(ParedownError, match=r"shrunk to shapes that config\.json can't say"):
        study_of(folders[False], tmp_path / "study", "compressed-tensors")
