"""Plans side by side, without a browser: the table, its paired figures, what is offered, and the layers' differences."""

from __future__ import annotations

import math
import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import pytest

from fake_study import RICH, FakeStudy, filled
from paredown.errors import ParedownError
from paredown.outcomes import Outcomes
from paredown.specs import Scheme
from paredown_widgets import Explorer, compare, flips, numbers
from paredown_widgets.figures import front
from paredown_widgets.figures.style import paper
from paredown_widgets.handlers import handle
from paredown_widgets.memory import remember
from paredown_widgets.model import ExplorerModel


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return filled(tmp_path_factory.mktemp("compared"), timed=True).folder


@pytest.fixture
def model(folder: Path) -> ExplorerModel:
    """The best plan of the run in the hands, W3 and a searched plan beside it."""
    made = ExplorerModel(FakeStudy(folder, timed=True))
    made.refresh()
    for digest in (uniform(made, 3), searched(made)):
        do(made, "compare_add", digest=digest)
    made.comparison.opened = True
    made.comparison.work(made)
    return made


def do(model: ExplorerModel, kind: str, **fields: object) -> None:
    handle(model, {"type": kind, **fields})
    assert model.error is None, model.error


def uniform(model: ExplorerModel, bits: int) -> str:
    return next(digest for digest in model.measured_plans() if model.uniform_bits(digest) == bits)


def searched(model: ExplorerModel) -> str:
    return next(digest for digest in model.measured_plans() if model.uniform_bits(digest) is None)


def row(model: ExplorerModel, label: str) -> dict:
    return next(row for row in compare.view(model)["rows"] if row["label"].startswith(label))


@pytest.fixture
def kept(folder: Path, tmp_path: Path) -> ExplorerModel:
    """The same in a folder of its own, for what is written there."""
    return reopened(Path(shutil.copytree(folder, tmp_path / "study")))


def reopened(folder: Path) -> ExplorerModel:
    """As after a restart of the kernel."""
    made = ExplorerModel(FakeStudy(folder, timed=True))
    made.refresh()
    return made


def test_compared_plans_outlive_the_kernel_whether_or_not_the_plan_was_edited(kept: ExplorerModel) -> None:
    folder = kept.study.folder
    proposed = dict(kept.editor.schemes)
    do(kept, "compare_add", digest=uniform(kept, 3))
    remember(kept)
    again = reopened(folder)
    assert again.comparison.added == (uniform(kept, 3),)
    assert (again.touched, again.editor.schemes) == (False, proposed)
    name = next(iter(again.editor.schemes))
    do(again, "bits", layers=[name], bits=2)
    do(again, "bits", layers=[name], bits=8)
    again.comparison.opened = True
    (before,) = [
        item["digest"]
        for item in items(again, "History of this plan")
        if item["name"].startswith("Before: ") and "2 bit" not in item["name"]
    ][:1]
    do(again, "compare_add", digest=before)
    remember(again)
    third = reopened(folder)
    assert third.comparison.added == (uniform(kept, 3), before)
    assert third.editor.schemes == again.editor.schemes
    entries = [entry.plan for entry in third.comparison.entries(third)]
    assert entries == [entry.plan for entry in again.comparison.entries(again)]  # a state of the plan that the study does not hold
    for plan in third.comparison.added:
        do(third, "compare_remove", digest=plan)
    remember(third)
    assert reopened(folder).comparison.added == ()


def items(model: ExplorerModel, group: str) -> list[dict]:
    return next((one["items"] for one in compare.offered(model) if one["label"] == group), [])


def test_saved_plans_may_be_added_by_their_names(kept: ExplorerModel) -> None:
    kept.comparison.opened = True
    assert items(kept, "Saved") == []
    do(kept, "bits", layers=[next(iter(kept.editor.schemes))], bits=2)
    saved = kept.plan
    assert saved is not None
    do(kept, "save_plan", name="<b>mine</b>")
    do(kept, "undo")
    (item,) = items(kept, "Saved")
    assert (item["name"], item["digest"], item["measured"]) == ("<b>mine</b>", saved.digest, False)
    do(kept, "compare_add", digest=item["digest"])
    assert items(kept, "Saved") == []
    assert [plan["name"] for plan in compare.view(kept)["plans"]] == ["this plan", "saved as <b>mine</b>"]
    do(kept, "forget_plan", name="<b>mine</b>")  # it stays where it is compared, over a restart too
    remember(kept)
    assert [entry.name for entry in reopened(kept.study.folder).comparison.entries(kept)][1:] == ["saved as <b>mine</b>"]


def test_outcomes_of_plans_that_nobody_looks_at_any_more_are_let_go(model: ExplorerModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paredown_widgets.comparison._READ", 5)
    comparison, before = model.comparison, compare.view(model)["rows"]
    plans = [digest for digest in model.measured_plans() if digest not in comparison.added][:5]
    for digest in plans:
        do(model, "compare_add", digest=digest)
        comparison.work(model)
        assert all(cell["kind"] == "measured" for cell in row(model, "Flipped")["cells"])
        do(model, "compare_remove", digest=digest)
    assert len(comparison._read) == 5
    assert {digest for pair in comparison._pairs for digest in pair} <= set(comparison._read)
    comparison.work(model)
    assert compare.view(model)["rows"] == before


def frames(model: ExplorerModel, y: str = "kl", x: str = "bytes") -> dict[str, dict]:
    return {trace["uid"]: trace for trace in front.front_figure(model, y, x)["data"] if trace["uid"].startswith("compared")}  # pyright: ignore[reportArgumentType]


def test_compared_plans_are_framed_on_the_front_each_by_its_letter(model: ExplorerModel) -> None:
    shown = frames(model)
    assert list(shown) == ["compared B", "compared C"]
    for trace, digest in zip(shown.values(), model.comparison.added, strict=True):
        measured = model.record.measurements[digest]
        assert (trace["x"][0], trace["y"][0]) == pytest.approx((measured.bytes / 1e6, measured.kl), rel=1e-5)
        assert trace["hoverinfo"] == "skip"  # the point within says it
    assert [trace["text"] for trace in shown.values()] == [["<b>B</b>"], ["<b>C</b>"]]
    for what in ("symbol", "color"):
        assert len({trace["marker"][what] for trace in shown.values()}) == 2
    state = front.plan_on_it(model)
    assert state["compared"] == "BC"
    assert "Compared with B uniform W3," in state["label"]
    assert frames(model, "metric")["compared B"]["y"] != shown["compared B"]["y"]
    assert frames(model, "kl", "seconds")["compared B"]["x"] != shown["compared B"]["x"]
    go.Figure(paper(front.front_figure(model, "kl")))  # plotly.py accepts it


def test_a_compared_plan_that_was_not_measured_looks_predicted_on_the_front(model: ExplorerModel) -> None:
    do(model, "bits", layers=[next(iter(model.editor.schemes))], bits=2)
    do(model, "compare_add", digest=model.plan.digest if model.plan else "")
    do(model, "undo")
    measured, predicted = frames(model)["compared C"], frames(model)["compared D"]
    assert predicted["text"] == ["<i>D</i>"]
    assert predicted["marker"]["line"]["width"] < measured["marker"]["line"]["width"]
    assert ", predicted<br>" in predicted["hovertext"][0]
    do(model, "compare_remove", digest=model.comparison.added[0])
    assert front.plan_on_it(model)["compared"] == "BC"  # the letters move up, on the chart too


def test_nothing_is_worked_out_before_somebody_looks(folder: Path) -> None:
    model = ExplorerModel(FakeStudy(folder, timed=True))
    model.refresh()
    do(model, "compare_add", digest=uniform(model, 3))
    assert compare.view(model) == {"plans": [], "count": 2}
    assert flips.view(model)["rows"] == []
    assert model.comparison.ready == 0


def test_changes_are_those_of_the_paired_differences(model: ExplorerModel) -> None:
    for letter, entry in zip("ABC", model.comparison.entries(model), strict=True):
        found, shown = model.study.compare(entry.plan), row(model, "Change to original")["cells"]["ABC".index(letter)]
        text = numbers.with_error(-100 * found.metric.value, 100 * found.metric.sd)
        assert shown["text"].lstrip("+") == text
        assert (
            f"95 % interval {numbers.fixed(-100 * found.metric.high, 1)} to {numbers.fixed(-100 * found.metric.low, 1)}" in shown["title"]
        )
    first = model.comparison.entries(model)[0].plan
    second = model.comparison.entries(model)[1].plan
    against = model.study.compare(second, first).metric
    assert row(model, "Change to A")["cells"][0]["text"] == "0"
    assert row(model, "Change to A")["cells"][1]["text"].lstrip("+") == numbers.with_error(-100 * against.value, 100 * against.sd)


def test_bold_is_what_beats_every_other_plan_by_two_standard_errors(model: ExplorerModel) -> None:
    entries = model.comparison.entries(model)
    for label, part in (("KL", "kl"), ("Loss", "loss"), ("Accuracy", "metric")):
        for one, cell in zip(entries, row(model, label)["cells"], strict=True):
            gaps = [getattr(model.study.compare(one.plan, other.plan), part) for other in entries if other is not one]
            assert cell["best"] == all(gap.value < -2 * gap.sd for gap in gaps), (label, one.letter)
    assert sum(cell["best"] for cell in row(model, "KL")["cells"]) == 1
    assert [cell["best"] for cell in row(model, "Size")["cells"]] == [e.plan.bytes == min(o.plan.bytes for o in entries) for e in entries]


def test_a_plan_that_is_not_measured_is_shown_by_its_prediction_alone(model: ExplorerModel) -> None:
    do(model, "bits", layers=[next(iter(model.labels))], bits=8)
    assert model.measurement() is None
    head, view = compare.view(model)["plans"][0], compare.view(model)
    assert (head["measured"], head["measure"], head["kind"]) == (False, "Measure", "warn")
    assert head["chip"] == "stale, 1 edit"
    kinds = {shown["label"]: shown["cells"][0]["kind"] for shown in view["rows"]}
    assert kinds["KL to original, nats"] == kinds["Size"] == "predicted"
    assert kinds["Flipped"] == kinds["Change to original, points"] == "none"
    assert not any(shown["cells"][0]["best"] for shown in view["rows"] if shown["label"] != "Size")
    assert [one["letter"] for one in flips.view(model)["plans"]] == ["B", "C"]
    assert flips.view(model)["count"].endswith("; A not measured")


def test_measure_in_a_column_queues_that_plan(model: ExplorerModel) -> None:
    do(model, "bits", layers=[next(iter(model.labels))], bits=2)
    digest = compare.view(model)["plans"][0]["digest"]
    do(model, "compare_measure", digest=digest)
    assert compare.view(model)["plans"][0]["chip"] == "measuring"
    for _ in range(200):
        model.refresh()
        if digest in model.record.measurements:
            break
        time.sleep(0.02)
    model.comparison.work(model)
    assert compare.view(model)["plans"][0]["measured"]
    assert [one["letter"] for one in flips.view(model)["plans"]] == ["A", "B", "C"]


def test_shift_click_adds_and_four_plans_are_enough(model: ExplorerModel) -> None:
    before = model.plan
    do(model, "load_plan", digest=uniform(model, 5), shift=True)
    assert model.plan is before
    assert model.status == "Uniform W5 is D in the view Compare"
    assert compare.view(model)["add"] == []
    handle(model, {"type": "compare_add", "digest": uniform(model, 6)})
    assert model.error is not None
    assert model.error["text"].startswith("4 plans are compared already")
    model.error = None
    do(model, "compare_remove", digest=uniform(model, 3))
    assert [one["name"] for one in compare.view(model)["plans"]][2] == "uniform W5"
    assert [one["letter"] for one in compare.view(model)["plans"]] == ["A", "B", "C"]


def test_the_menu_offers_uniform_measured_and_earlier_plans(model: ExplorerModel) -> None:
    do(model, "bits", layers=[next(iter(model.labels))], bits=8)
    groups = {group["label"]: group["items"] for group in compare.view(model)["add"]}
    assert list(groups) == ["Uniform", "Measured, nearest in size", "History of this plan"]
    taken = set(model.comparison.added)
    assert not taken & {item["digest"] for items in groups.values() for item in items}
    assert [item["name"] for item in groups["Uniform"]] == [f"uniform W{bits}" for bits in (2, 4, 5, 6, 8)]
    history = groups["History of this plan"]
    assert [item["name"] for item in history[:2]] == ["This plan as it is now", "Before the edits, measured"]
    do(model, "compare_add", digest=history[0]["digest"])
    do(model, "undo")
    entry = model.comparison.entries(model)[-1]
    assert entry.plan.digest == history[0]["digest"]
    assert entry.measurement is None
    with pytest.raises(AssertionError, match="this study has no plan 123"):
        do(model, "compare_add", digest="123")


def test_layers_tell_bits_and_what_is_beside_them_with_their_sign(tmp_path: Path) -> None:
    model = ExplorerModel(filled(tmp_path, schemes=RICH))
    model.refresh()
    names = list(model.editor.schemes)
    do(model, "load_plan", digest=uniform(model, 4))
    schemes = dict(model.editor.schemes)
    for name, scheme in zip(names, ("int8g64", "int2g64", "int4g64+2:4-wanda", "int3g64+eora16", "int4g64-gptq"), strict=False):
        schemes[name] = Scheme.parse(scheme)
    other = model.make_plan(schemes)
    assert other is not None
    model.comparison.opened = True
    model.comparison.add(model, other)
    first, second = compare.view(model)["layers"]["plans"]
    assert [cell[0] for cell in first] == ["4"] * len(names)
    assert [cell[:3] for cell in second[:6]] == [
        ["+4", 6, ""],
        ["−2", 1, ""],
        ["·", 3, "+2:4"],
        ["−1", 2, "+r16"],
        ["·", 3, "≠"],
        ["·", 3, ""],
    ]
    assert second[3][3] == "3 bit, groups of 64, EoRA of rank 16 instead of 4 bit, groups of 64"


def test_where_kl_and_loss_disagree_the_view_says_so(model: ExplorerModel, monkeypatch: pytest.MonkeyPatch) -> None:
    study, plans = model.study, [entry.plan for entry in model.comparison.entries(model)]
    draw, n = np.random.default_rng(0), 500
    kl = {plan.digest: 0.1 * (i + 1) for i, plan in enumerate(plans)}

    def outcomes(plan=None):
        if plan is None or plan.digest not in kl:
            return Outcomes(np.ones(n), np.zeros(n), np.ones(n), np.ones(n), np.ones(n))
        one = kl[plan.digest]
        return Outcomes(np.ones(n), one + 0.01 * draw.random(n), 1 - one + 0.01 * draw.random(n), np.ones(n), np.ones(n))

    monkeypatch.setattr(study, "outcomes", outcomes)
    model.comparison.__init__()
    for plan in plans[1:]:
        model.comparison.add(model, plan)
    model.comparison.opened = True
    model.comparison.work(model)
    notices = compare.view(model)["notices"]
    assert len(notices) == 3
    assert notices[0].startswith("A against B: KL to the original is lower")
    assert "but the loss (+" in notices[0]


def test_a_study_of_an_earlier_version_asks_to_measure_again(folder: Path) -> None:
    study = FakeStudy(folder, timed=True)
    study.answered = False
    model = ExplorerModel(study)
    model.refresh()
    model.comparison.opened = True
    model.comparison.work(model)
    head = compare.view(model)["plans"][0]
    assert head["measure"] == "Measure again"
    assert "kept no answers" in head["why"]
    assert row(model, "KL")["cells"][0]["kind"] == "measured"
    assert "Measure a plan again to see which ones flipped" in flips.view(model)["empty"]


def test_python_compares_as_the_view_does(kept: ExplorerModel) -> None:
    explorer = Explorer(kept.study)
    try:
        model = explorer.model
        plans = [model.record.plans[uniform(model, 3)], searched(model)[:9]]
        table = explorer.compare(*plans)
        assert list(table.index) == ["A", "B", "C"]
        assert [plan["digest"] for plan in compare.view(model)["plans"]] == list(table["plan"])
        for letter, plan in zip(table.index, table["plan"], strict=True):
            found = model.study.compare(model.record.plans[plan])
            assert table.loc[letter, "change_to_original"] == pytest.approx(-found.metric.value)
            assert table.loc[letter, "change_to_original_sd"] == pytest.approx(found.metric.sd)
            assert table.loc[letter, "flipped"] == model.study.outcomes(model.record.plans[plan]).changed(model.study.outcomes()).sum()
        assert math.isnan(table.loc["A", "change_to_A"])
        assert table.loc["B", "change_to_A"] == pytest.approx(table.loc["B", "change_to_original"] - table.loc["A", "change_to_original"])
        assert len(explorer.compare()) == 3
        own = explorer.compare(dict.fromkeys(model.editor.schemes, "int5g64") | {next(iter(model.editor.schemes)): "int8g64"}).loc["B"]
        assert not own["measured"]
        assert own["kl"] > 0
        assert math.isnan(own["flipped"])
        with pytest.raises(ParedownError, match="4 plans are compared already"):
            explorer.compare(*(uniform(model, bits) for bits in (2, 3, 4, 5)))
        with pytest.raises(ParedownError, match="with which 0 begin"):
            explorer.compare("nothing")
    finally:
        explorer.close()


def test_a_perplexity_changes_relative_to_the_others(model: ExplorerModel) -> None:
    assert model.record.info is not None
    found = model.study.compare(model.comparison.entries(model)[1].plan).metric
    info = replace(model.record.info, metric="perplexity", higher_is_better=False)
    value, sd, low, high = compare.metric_change(info, replace(found, value=math.log(1.1), sd=0.01, low=math.log(1.05), high=math.log(1.2)))
    assert (value, sd, low, high) == pytest.approx((0.1, 0.011, 0.05, 0.2))
