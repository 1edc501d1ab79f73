"""A person says which sizes, and which of the waiting plans, go first; the run does so, and does it again when it goes on."""

import dataclasses

import pytest

from paredown.errors import ParedownError
from paredown.specs import CurvatureRequest, Measurement, Plan, Priority, StudyConfig, Trial, from_json, to_json
from paredown.study import Study
from paredown.study.waiting import Waiting
from study_checks import figures

SCHEMES = ("int2g64sym", "int3g64sym", "int4g64sym", "int8g64sym")


@pytest.fixture
def study_of(llama, austen):
    config = StudyConfig(
        model=llama.id,
        task="austen",
        schemes=SCHEMES,
        budgets=(2.5, 3.0, 3.5),
        hessian_seconds=0,
        refine_plans=0,
        search_samples=16,
        seed=3,
    )
    return lambda folder, **changes: Study(folder, dataclasses.replace(config, **changes), model=llama, task=austen)


def plan(digit):
    return Plan("tiny", f"{digit:016d}", {}, 0)


def test_plans_wait_in_order_and_may_be_moved_to_the_front_or_taken_back():
    waiting, plans, request = Waiting(), [plan(digit) for digit in range(3)], CurvatureRequest(())
    waiting.put(request)
    for each in (*plans, plans[0]):
        waiting.put(each)
    assert waiting.plans == tuple(plans)
    waiting.hasten(plans[2].digest)
    waiting.withdraw(plans[0].digest)
    assert waiting.plans == (plans[2], plans[1])
    with pytest.raises(ParedownError, match="does not wait any more"):
        waiting.withdraw(plans[0].digest)
    assert [waiting.take() for _ in range(4)] == [plans[2], request, plans[1], None]
    assert waiting.empty


def test_sizes_are_checked_and_travel_as_json():
    with pytest.raises(ParedownError, match="swap them"):
        Priority(9, 4)
    wish = Priority(4, 9, 2)
    assert from_json(Priority, to_json(wish)) == wish
    assert [wish.holds(size) for size in (3, 4, 9, 10)] == [False, True, True, False]
    assert not Priority(0, 0).holds(0)


def test_plans_of_the_wanted_sizes_are_measured_first(study_of, tmp_path):
    study = study_of(tmp_path / "study")
    wanted, measured = [], []

    def listener(event):
        record = study.record()
        if event.kind == "front":
            wanted.extend(sorted({plan.bytes for plan in record.plans.values() if plan.found_by != "original"})[2:4])
            study.prioritise(*wanted)
        measured.extend(record.plans[each.plan_digest].bytes for each in event.payload if isinstance(each, Measurement) and wanted)

    study.run(listener)
    assert set(measured[:2]) == set(wanted)
    assert len(measured) > 4
    assert study.record().priority == Priority(*wanted)
    study.prioritise(0, 0)
    assert study.record().priority is None
    assert study.record().state == "done"


def test_a_wish_is_taken_up_by_the_refinement_and_again_where_it_goes_on(study_of, tmp_path):
    def run(folder, stop_at=None):
        study = study_of(folder, refine_plans=12)
        seen = []

        def listener(event):
            seen.extend(value for value in event.payload if isinstance(value, Trial))
            if len(seen) == 8 and not any(isinstance(value, Priority) for value in study.store.payloads(Priority)):
                sizes = [each.bytes for each in study.record().plans.values() if each.found_by.startswith("uniform int3")]
                study.prioritise(sizes[0] - 10, sizes[0] + 10)
            if len(seen) == stop_at:
                study.cancel()

        return study, study.run(listener)

    whole, record = run(tmp_path / "whole")
    assert record.state == "done"
    taken = [each for each in whole.store.payloads(Priority) if each.round is not None]
    assert len(taken) == 1
    _, record = run(tmp_path / "stopped", stop_at=14)
    assert record.state == "cancelled"
    again = study_of(tmp_path / "stopped", refine_plans=12)
    assert again.run().state == "done"
    assert again.store.payloads(Trial) == whole.store.payloads(Trial)
    assert figures(again) == figures(whole)
