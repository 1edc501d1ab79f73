"""A study that is asked for latencies."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from paredown.cli import main
from paredown.errors import ParedownError
from paredown.kernels.latency import Timing
from paredown.search import allocate, pareto_front
from paredown.specs import Scheme, StudyConfig
from paredown.study import Study


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PAREDOWN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def asked(config):
    return replace(config, schemes=("int4g64sym", "int8g64sym"), latency_tokens=3)


def test_a_run_times_every_layer_under_every_scheme_and_searches_at_those_latencies(llama, austen, asked, tmp_path, own_cache, capsys):
    study = Study(tmp_path / "study", asked, model=llama, task=austen)
    record = study.run()
    candidates = [each for of in record.candidates.values() for each in of.values()]
    assert all(each.seconds_per_token > 0 for each in candidates)
    tables = [json.loads(path.read_text())["seconds"] for path in own_cache.glob("latency/*.json")]
    assert len(tables) == 1
    assert all(key.endswith("M=3") for key in tables[0])
    for plan in record.plans.values():
        total = sum(
            next(each for each in of.values() if plan.schemes.get(name, Scheme()) in (each.scheme, each.effective)).seconds_per_token
            for name, of in record.candidates.items()
        )
        assert plan.seconds_per_token == pytest.approx(total)
    by_name = {plan.found_by: plan for plan in record.plans.values()}
    for name, plan in by_name.items():
        if name.startswith("searched at the latency of "):
            assert plan.seconds_per_token <= by_name[f"uniform {name.rpartition(' ')[2]}"].seconds_per_token * (1 + 1e-9)
    problem = study.problem()
    front = pareto_front(problem, resource="seconds")
    assert front.amounts[0] == pytest.approx(problem.least("seconds"))
    halfway = (problem.least("seconds") + front.amounts[-1]) / 2
    assert problem.predict(allocate(problem, halfway, resource="seconds")).seconds_per_token <= halfway
    with pytest.raises(SystemExit):
        main(["plans", str(tmp_path / "study")])
    assert "CPU µs/token" in capsys.readouterr().out


def test_a_finished_study_may_be_timed_later_and_elsewhere(llama, austen, asked, tmp_path, monkeypatch):
    folder = tmp_path / "study"
    before = Study(folder, replace(asked, latency_tokens=None), model=llama, task=austen).run()
    assert all(plan.seconds_per_token is None for plan in before.plans.values())
    measured = {digest: (m.kl, m.bytes) for digest, m in before.measurements.items()}

    monkeypatch.setattr("paredown.study.latencies.seconds_of", lambda calls, say: dict.fromkeys(calls, Timing(6e-6, 3e-7)))
    record = Study(folder, asked, model=llama, task=austen).run()
    uses = sum(1 + len(layer.tied_to) for layer in record.layers)
    assert [plan.seconds_per_token for plan in record.plans.values()] == pytest.approx([uses * 2e-6] * len(record.plans))
    assert [plan.seconds_per_token_sd for plan in record.plans.values()] == pytest.approx([uses * 1e-7] * len(record.plans))
    assert {digest: (m.kl, m.bytes) for digest, m in record.measurements.items() if digest in measured} == measured

    events = len(Study(folder).store.events())
    Study(folder, asked, model=llama, task=austen).run()
    again = Study(folder).store.events()[events:]
    assert not [event for event in again if event.kind in ("candidates", "plan")]


def test_tokens_are_a_number_from_one_on():
    with pytest.raises(ParedownError, match="latency_tokens must be at least 1, got 0"):
        StudyConfig(latency_tokens=0)
