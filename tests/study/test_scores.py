"""Scores of other allocators and pair terms as parts of a study: what is measured, kept, resumed and shown."""

from __future__ import annotations

import dataclasses
import json
from itertools import combinations
from typing import get_args

import numpy as np
import pytest

from paredown.cli import main
from paredown.errors import ParedownError
from paredown.evaluation.search_split import SearchSplit
from paredown.search import CLASSICS
from paredown.specs import KEEP, LayerInteractions, Measurement, Scheme, Score, StudyConfig, Trial, from_json, to_json
from paredown.study import Study

SCHEMES = ("int2g64sym", "int4g64sym")
PLANS = 6  # three groups alone and in pairs


@pytest.fixture(scope="module")
def scored(llama, austen, tmp_path_factory):
    """A study with every score and some pair terms; not to be written to."""
    config = StudyConfig(
        model=llama.id,
        task="austen",
        schemes=SCHEMES,
        hessian_seconds=0,
        search_samples=8,
        scores=get_args(Score),
        interactions=PLANS,
        interaction_scheme="int2g64sym",
        seed=3,
    )
    study = Study(tmp_path_factory.mktemp("scored"), config, model=llama, task=austen)
    study.run()
    return study


def split_of(study):
    return SearchSplit(study.session().evaluator, None, 8, "kl")


def loss_of(split, schemes):
    """Per unit, by a run of its own."""
    return split.once(schemes, np.arange(len(split))).sum() / split.units.sum()


def test_every_candidate_has_every_score_and_the_measured_one_is_that_of_the_layer_alone(scored):
    record = scored.record()
    changed = [c for of in record.candidates.values() for c in of.values() if c.effective != KEEP]
    assert {frozenset(c.scores) for c in changed} == {frozenset(get_args(Score))}
    split = split_of(scored)
    for candidate in changed[:: len(changed) // 4]:
        assert candidate.scores["measured_loss"] == pytest.approx(loss_of(split, {candidate.layer: candidate.effective}), rel=1e-9)
    assert not {trial.plan_digest for trial in scored.store.payloads(Trial)} & {
        m.plan_digest for m in scored.store.payloads(Measurement)
    }, "what was run on the search split is no result"


def test_pair_terms_are_differences_of_four_losses(scored):
    found = scored.record().interactions
    assert found is not None
    assert (found.n, found.objective, str(found.scheme)) == (8, "kl", "int2g64sym")
    assert len(found.groups) == 3 < found.groups_of_model
    split = split_of(scored)

    def loss(*some):
        return loss_of(split, {name: found.scheme for i in some for name in found.groups[i]})

    alone = [loss(i) for i in range(3)]
    assert list(found.single) == pytest.approx(alone, rel=1e-9)
    pairs = np.array(found.pairs)
    np.testing.assert_array_equal(pairs, pairs.T)
    np.testing.assert_array_equal(np.diag(pairs), 0)
    for i, j in combinations(range(3), 2):
        assert pairs[i, j] == pytest.approx(loss(i, j) - alone[i] - alone[j], rel=1e-6, abs=1e-12)
        assert found.pairs_sd[i][j] > 0


def test_the_groups_that_lose_most_are_those_that_are_paired(scored):
    found, problem = scored.record().interactions, scored.problem()
    loss = {
        group: costs[offered.index(found.scheme)]
        for group, costs, offered in zip(problem.groups, problem.guarded_loss, problem.schemes, strict=True)
        if found.scheme in offered
    }
    assert min(loss[group] for group in found.groups) >= max(value for group, value in loss.items() if group not in found.groups)
    assert [g for g in problem.groups if g in found.groups] == list(found.groups)


def test_the_classics_stand_side_by_side_within_the_same_bytes(scored):
    table = scored.classics(bits=3)
    assert list(table.index) == [classic.name for classic in CLASSICS]
    refused = table[table.refused != ""]
    assert set(refused.index) <= {"HAWQ", "Q-BERT"}, refused.refused.to_dict()
    sizes = {p.found_by: p.bytes for p in scored.record().plans.values()}
    budget = (sizes["uniform int2g64sym"] + sizes["uniform int4g64sym"]) / 2
    assert (table.bytes.dropna() <= budget).all()
    ours = next(p for p in scored.record().plans.values() if p.found_by == "searched at 3 bits")
    assert table.plan["Paredown"] == ours.digest
    assert table.kl["Paredown"] == scored.record().measurements[ours.digest].kl


def test_agreement_is_over_all_scores_that_are_known_and_any_that_are_named(scored):
    table = scored.agreement()
    assert {"measured_loss", "kfac", "guarded_loss", "trace"} <= {*table["first"], *table["second"]}
    some = scored.agreement(["loss_increase", "ekfac", "measured_loss"], scheme=Scheme.parse("int4g64sym"))
    assert len(some) == 3
    assert ((some.low <= some.spearman) & (some.spearman <= some.high)).all()


def test_the_commands_print_tables_and_json(scored, capsys):
    def said(*words):
        with pytest.raises(SystemExit) as end:
            main([words[0], str(scored.folder), *words[1:]])
        assert end.value.code == 0
        return capsys.readouterr().out

    rows = json.loads(said("compare", "--bits", "3", "--json"))
    assert [row["name"] for row in rows] == [classic.name for classic in CLASSICS]
    ours = next(row for row in rows if row["name"] == "Paredown")
    assert set(ours["schemes"].values()) <= {"keep", *SCHEMES}
    assert isinstance(ours["bytes"], int)
    assert "EK-FAC" in said("compare", "--bits", "3")
    pairs = json.loads(said("agreement", "--scheme", "int4g64sym", "--json"))
    assert {"first", "second", "spearman", "low", "high", "n"} == set(pairs[0])
    assert "measured_loss" in said("agreement")


def test_a_run_that_was_stopped_goes_on_where_it_was_and_runs_nothing_twice(llama, austen, scored, tmp_path):
    config = dataclasses.replace(scored.config, scores=("measured_loss",))
    study = Study(tmp_path, config, model=llama, task=austen)
    alone = []

    def stop(event):
        alone.extend(value for value in event.payload if isinstance(value, Trial))
        if len(alone) == 5:
            study.cancel()

    study.run(stop)
    assert study.record().state == "cancelled"
    assert len(alone) == 5
    again = Study(tmp_path, config, model=llama, task=austen)
    record = again.run()
    assert record.state == "done"
    digests = [trial.plan_digest for trial in again.store.payloads(Trial)]
    assert len(digests) == len(set(digests)) == len(scored.store.payloads(Trial))
    assert record.interactions == scored.record().interactions
    for layer, of in scored.record().candidates.items():
        for scheme, candidate in of.items():
            assert record.candidates[layer][scheme].scores.get("measured_loss") == candidate.scores.get("measured_loss")
    count = record.sequence
    assert len([e for e in again.store.events(after=count) if e.payload]) == 0
    again.run()
    assert not [e for e in again.store.events(after=count) if e.payload], "nothing new is written by a run that has nothing to do"


def test_the_measured_score_may_be_asked_for_later_and_others_may_not(llama, austen, config, tmp_path):
    plain = dataclasses.replace(config, schemes=SCHEMES[:1], search_samples=4)
    study = Study(tmp_path, plain, model=llama, task=austen)
    study.run()
    with pytest.raises(ParedownError, match="the score 'measured_loss' was not asked for"):
        study.agreement(["loss_increase", "measured_loss"])
    with pytest.raises(ParedownError, match=r"holds a study with other settings \(scores \(\) → \('fisher',\)\)"):
        Study(tmp_path, dataclasses.replace(plain, scores=("fisher",)), model=llama, task=austen)
    later = Study(tmp_path, dataclasses.replace(plain, scores=("measured_loss",)), model=llama, task=austen)
    later.run()
    assert set(later.agreement(["loss_increase", "measured_loss"])["second"]) == {"measured_loss"}
    first = later.record().candidates
    other = Study(tmp_path, dataclasses.replace(plain, scores=("measured_loss",), search_samples=3), model=llama, task=austen).run()
    name = next(name for name, of in first.items() if len(of) > 1)
    for scheme, candidate in first[name].items():  # of another split
        if scheme != KEEP:
            assert other.candidates[name][scheme].scores["measured_loss"] != candidate.scores["measured_loss"]


def test_a_single_sample_gives_no_pair_terms_and_says_why(llama, austen, config, tmp_path):
    asked = dataclasses.replace(config, schemes=SCHEMES[:1], search_samples=1, interactions=3)
    record = Study(tmp_path, asked, model=llama, task=austen).run()
    assert record.state == "done"
    assert record.interactions is None
    assert any("pair terms need at least 2 samples" in event.message for event in record.log)


def test_bad_settings_are_refused():
    with pytest.raises(ParedownError, match="interactions must be 0 or at least 3 plans"):
        StudyConfig(interactions=2)
    with pytest.raises(ParedownError, match="interaction_scheme must be one of the study's schemes int4g64, got int2g64"):
        StudyConfig(schemes=("int4g64",), interaction_scheme="int2g64")
    with pytest.raises(ParedownError, match="expected terms of 1 groups with each of the 1"):
        LayerInteractions(KEEP, (("a",),), (1.0,), (0.0,), ((0.0, 1.0),), ((0.0,),), "kl", "x", 2, 1)


def test_pair_terms_come_back_from_json(scored):
    found = scored.record().interactions
    assert from_json(LayerInteractions, to_json(found)) == found
