"""A study whose plans are measured with a rounded cache."""

from __future__ import annotations

from dataclasses import replace

import pytest

from paredown import models, tasks
from paredown.cli import main
from paredown.errors import ParedownError
from paredown.specs import Measurement, Plan, Scheme, StudyConfig, from_json, to_json
from paredown.store import Store
from paredown.study import Study
from paredown.study.session import Session
from tiny_models import CASES


def measured(config, llama, austen, folder, bits):
    """KL of int8 everywhere with a cache of so many bits, and of the original."""
    session = Session.open(replace(config, kv_cache_bits=bits), Store(folder, create=True), llama, austen)
    plan = Plan(llama.id, llama.digest, {layer.name: Scheme.parse("int8g64sym") for layer in session.layers}, 1)
    return session.measure(plan), session.measure(session.original_plan())


def test_fewer_bits_in_the_cache_show_in_every_plan_and_not_in_the_original(llama, austen, config, tmp_path):
    found = {bits: measured(config, llama, austen, tmp_path / str(bits), bits) for bits in (None, 8, 4)}
    assert all(original.kl == 0 and original.kv_cache_bits is None for _, original in found.values())
    assert found[8][0].kl < found[4][0].kl
    assert found[None][0].kl < found[4][0].kl / 10
    assert [plan.kv_cache_bits for plan, _ in found.values()] == [None, 8, 4]
    heads = 2 * llama.model.config.num_hidden_layers * llama.model.config.num_key_value_heads
    channels = llama.model.config.head_dim
    assert found[None][0].kv_cache_bytes == 0
    assert found[4][0].kv_cache_bytes == heads * (channels / 2 + 2.5)
    assert found[8][0].kv_cache_bytes == heads * (channels + 3)


def test_a_run_says_what_was_cached_how(llama, austen, config, tmp_path, capsys):
    study = Study(tmp_path, replace(config, schemes=("int8g64sym",), kv_cache_bits=4), model=llama, task=austen)
    record = study.run()
    assert "keys and values cached at 4 bits, the original with all of theirs" in record.info.notice
    assert {m.kv_cache_bits for digest, m in record.measurements.items() if record.plans[digest].schemes} == {4}
    assert record.baseline.kv_cache_bits is None
    with pytest.raises(SystemExit) as end:
        main(["plans", str(tmp_path)])
    assert end.value.code == 0
    assert "bytes a token in the cache at 4 bits, scales and zero points included" in capsys.readouterr().out


def test_an_encoder_is_refused_before_anything_is_computed(tmp_path):
    model = CASES["bert"].build()
    loaded = models.LoadedModel("bert", "bert", model, None, "0" * 16, "float32", 1)
    batch = CASES["bert"].inputs()
    task = tasks.custom(lambda model: 0.0, batches=[batch], calibration=[batch], higher_is_better=True)
    study = Study(tmp_path, StudyConfig(task="custom", kv_cache_bits=8), model=loaded, task=task)
    with pytest.raises(ParedownError, match="BertForSequenceClassification does not generate token by token"):
        study.run()


def test_other_widths_are_refused_and_measurements_of_old_stores_open(finished):
    with pytest.raises(ParedownError, match="kv_cache_bits must be 8, 4 or None, got 3"):
        StudyConfig(kv_cache_bits=3)
    text = to_json(finished.record().baseline)
    for name in ("kv_cache_bits", "kv_cache_bytes"):
        text = text.replace(f', "{name}": ' + ("null" if name.endswith("bits") else "0.0"), "")
    assert "kv_cache" not in text
    assert from_json(Measurement, text) == finished.record().baseline
