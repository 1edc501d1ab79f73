from __future__ import annotations

from dataclasses import replace

import pytest

from paredown.errors import ParedownError
from paredown.specs import Plan, Scheme, StudyConfig
from paredown.store import Store
from paredown.study.session import Session


def test_plans_are_measured_in_the_precision_that_was_asked_for_and_say_so(llama, austen, tmp_path):
    config = StudyConfig(task="custom", schemes=("int8g64",), held_out_samples=4, calibration_samples=4)
    found = {}
    for precision in ("float32", "bfloat16", "int8"):
        session = Session.open(replace(config, precision=precision), Store(tmp_path / precision, create=True), llama, austen)
        plan = Plan(llama.id, llama.digest, {layer.name: Scheme.parse("int8g64") for layer in session.layers}, 1)
        found[precision] = session.measure(plan)
        original = session.measure(session.original_plan())
        assert original.kl == 0
        assert "approximate" not in original.kernel
    assert "emulated)" in found["float32"].kernel
    assert "bfloat16 weights and activations" in found["bfloat16"].kernel
    assert "inputs rounded to 8 bits" in found["int8"].kernel or "emulated" in found["int8"].kernel
    for rough in ("bfloat16", "int8"):
        assert "approximate" in found[rough].kernel or "emulated" in found[rough].kernel
        assert found[rough].metric.value == pytest.approx(found["float32"].metric.value, rel=0.02)


def test_other_precisions_are_refused():
    with pytest.raises(ParedownError, match="precision must be one of float32, bfloat16, int8, got 'float16'"):
        StudyConfig(precision="float16")
