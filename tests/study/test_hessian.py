"""The true Hessian in a study: what it estimates, that nothing is lost or done twice, and that its failures spoil nothing."""

import dataclasses
import os
import signal
import time

import pytest
import torch
from scipy.sparse.linalg import eigsh
from torch.nn.functional import cross_entropy

from paredown import tasks
from paredown.curvature import Hessian, LossSurface
from paredown.errors import ParedownError
from paredown.models import LoadedModel, digest, distinct_tensors
from paredown.specs import CurvatureRequest, EigenvalueEstimate, QuadraticFit, SpectralDensity, StudyConfig, TraceEstimate
from paredown.study import Study
from paredown.study import hessian as stage
from paredown.tasks import Batch
from tiny_models import CASES, VOCABULARY

QUERY, POOLER = "bert.encoder.layer.1.attention.self.query", "bert.pooler.dense"
ROUGHLY = CurvatureRequest(samples=4, relative_error=10)


@pytest.fixture(scope="module")
def bert():
    model = CASES["bert"].build().eval().requires_grad_(False)
    return LoadedModel("bert", "bert", model, None, digest(distinct_tensors(model)), "float32", 0)


def batches(first, count, labels=True):
    generator = torch.Generator().manual_seed(first)
    made = []
    for start in range(first, first + count, 2):
        ids = torch.randint(3, VOCABULARY, (2, 6), generator=generator)
        targets = torch.randint(2, (2,), generator=generator) if labels else None
        made.append(Batch({"input_ids": ids, "attention_mask": torch.ones_like(ids)}, targets, (start, start + 1)))
    return made


def task_of(**more):
    labels = more.pop("labels", True)
    held_out = batches(100, 4)
    return tasks.custom(lambda model: 1.0, batches=held_out, calibration=batches(0, 8, labels), higher_is_better=True, name="own", **more)


def study_of(folder, bert, *, seconds=0.0, task=None):
    config = StudyConfig(model="bert", task="own", schemes=("int4g16sym",), export_format="paredown", hessian_seconds=seconds, seed=1)
    return Study(folder, config, model=bert, task=task or task_of())


@pytest.fixture(scope="module")
def finished(bert, tmp_path_factory):
    """A run without the stage; not to be written to."""
    study = study_of(tmp_path_factory.mktemp("finished"), bert)
    assert study.run().state == "done"
    return study


@pytest.fixture
def stage_asks_for_little(monkeypatch):
    """So that the stage ends by what it knows and not by the clock."""
    monkeypatch.setattr(stage, "CurvatureRequest", lambda seconds: dataclasses.replace(ROUGHLY, seconds=seconds))


def estimates(study, kind):
    return [value for value in study.store.payloads(kind) if getattr(value, "matrix", "hessian") == "hessian"]


def latest(study):
    """The last word on every layer, whatever the order."""
    record = study.record()
    return {
        layer.name: (record.estimates(layer.name, "hessian"), dataclasses.replace(record.quadratic_fits[layer.name], seed=0))
        for layer in record.layers
    }


@pytest.fixture(scope="module")
def whole(bert, tmp_path_factory):
    """A run with the stage, undisturbed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage, "CurvatureRequest", lambda seconds: dataclasses.replace(ROUGHLY, seconds=seconds))
        study = study_of(tmp_path_factory.mktemp("whole"), bert, seconds=10_000)
        assert study.run().state == "done"
    return study


def test_the_first_thing_that_a_run_shows_is_every_layers_spectrum(finished):
    stages = list(dict.fromkeys(event.stage for event in finished.store.events()))
    assert stages == ["load", "spectra", "baseline", "sensitivity", "search", "measure"]
    first = [event for event in finished.store.events() if event.stage == "spectra" and event.kind == "curvature"]
    assert [event.layer for event in first][-1] == ""  # the whole model, when all layers are known
    assert {event.layer for event in first} == {"", *(layer.name for layer in finished.record().layers)}
    for event in first:
        trace, ends, density = event.payload
        assert (trace.matrix, trace.probe_sd, density.exact) == ("ggn", 0.0, True)  # two classes: one pass is exact
        assert trace.value == pytest.approx(sum(density.nodes[0][i] * w for i, w in enumerate(density.weights[0])) * density.dimension)
        assert ends.top[0] == max(density.nodes[0])
        assert ends.half_sample_top > 0
    assert finished.record().estimates("").trace.value == pytest.approx(
        sum(finished.record().estimates(layer.name).trace.value for layer in finished.record().layers)
    )


def test_the_stage_estimates_everything_of_every_layer(whole):
    record = whole.record()
    assert list(dict.fromkeys(event.stage for event in whole.store.events()))[-1] == "hessian"
    for layer in record.layers:
        known = record.estimates(layer.name, "hessian")
        assert (known.trace.samples, known.eigenvalues.samples, known.density.samples) == (4, 4, 4), layer.name
        assert known.trace.scale > 0
        assert known.eigenvalues.bottom[0] <= known.eigenvalues.top[0]
        fit = record.quadratic_fits[layer.name]
        assert [step.scheme.split("g")[0] for step in fit.steps] == ["int8", "int4", "int3", "int2"]
        assert fit.negative_share == pytest.approx(known.density.negative_share)
        assert fit.reason


def test_estimates_agree_with_other_ways_to_compute_them(whole, bert):
    """The ends of the spectrum with ARPACK on the Hessian of the weights; the gradient with autograd."""
    record = whole.record()
    layer = next(layer for layer in record.layers if layer.name == QUERY)
    surface = LossSurface.of(bert.model, task_of(), 4)
    operator = Hessian(surface, [layer]).to_scipy()
    ends = record.estimates(QUERY, "hessian").eigenvalues
    for which, value, residual in (("LA", ends.top[0], ends.top_residuals[0]), ("SA", ends.bottom[0], ends.bottom_residuals[0])):
        expected = float(eigsh(operator, k=1, which=which, return_eigenvectors=False)[0])
        assert value == pytest.approx(expected, abs=residual + 1e-4 * ends.top[0])
    weight = bert.model.get_submodule(QUERY).weight
    weight.requires_grad_(True)
    try:
        loss = (
            sum(cross_entropy(bert.model(**batch.inputs).logits, batch.targets, reduction="sum") for batch in surface.batches)
            / surface.samples
        )
        (gradient,) = torch.autograd.grad(loss, weight)
    finally:
        weight.requires_grad_(False)
    assert record.quadratic_fits[QUERY].gradient_norm == pytest.approx(float(gradient.norm()), rel=1e-3)


def test_predicted_steps_are_what_rounding_does_to_the_loss(whole):
    """At 8 bits the quadratic model must hold: the steps are short."""
    for fit in whole.record().quadratic_fits.values():
        step = fit.steps[0]
        assert step.measured == pytest.approx(step.predicted, rel=0.1, abs=1e-9), fit.layer


def test_running_again_estimates_nothing_again(whole):
    before = len(whole.store.events())
    whole.run()
    assert not [event for event in whole.store.events(after=before) if event.kind == "curvature"]


@pytest.mark.parametrize("at", [2, 9, 30])
def test_kill_9_in_the_stage_then_the_same_command(whole, bert, tmp_path, stage_asks_for_little, at):
    """A process that is killed at its so manieth estimate: the next one goes on with the same probes, and ends with the same figures."""
    child = os.fork()
    if child == 0:
        seen = []

        def kill(event):
            seen.extend([event] if event.stage == "hessian" and event.kind == "curvature" else [])
            if len(seen) == at:
                os.kill(os.getpid(), signal.SIGKILL)

        study_of(tmp_path, bert, seconds=10_000).run(kill)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    again = study_of(tmp_path, bert, seconds=10_000)
    assert again.run().state == "done"
    same(latest(again), latest(whole))
    for kind in (EigenvalueEstimate, SpectralDensity, QuadraticFit):
        made = [(value.layer, len(getattr(value, "nodes", ()))) for value in estimates(again, kind)]  # a density grows by a probe
        assert len(made) == len(set(made)), kind  # nothing twice


def same(mine, others):
    assert mine.keys() == others.keys()
    for name, (known, fit) in mine.items():
        other, other_fit = others[name]
        assert known.trace == TraceEstimate(**{**as_dict(other.trace), **close(known.trace, other.trace)})
        assert known.eigenvalues.top == pytest.approx(other.eigenvalues.top, rel=1e-4)
        assert (fit.verdict, fit.reason) == (other_fit.verdict, other_fit.reason)


def as_dict(value):
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}


def close(mine, other):
    """Numbers that rounding may move."""
    names = ("value", "data_sd", "probe_sd", "scale")
    for name in names:
        assert getattr(mine, name) == pytest.approx(getattr(other, name), rel=1e-4, abs=1e-9)
    return {name: getattr(mine, name) for name in names}


def test_cancelled_and_paused_between_products(whole, bert, tmp_path, stage_asks_for_little):
    study = study_of(tmp_path, bert, seconds=10_000)
    stopped = study.run(lambda event: study.cancel() if event.stage == "hessian" and event.kind == "curvature" else None)
    assert stopped.state == "cancelled"
    assert len(estimates(study, TraceEstimate)) < len(stopped.layers)  # at once, not at the end of the stage
    held = []

    def hold(event):
        if event.stage == "hessian" and event.kind == "curvature" and not held:
            held.append(event)
            study.pause()

    study.start(hold)
    deadline = time.monotonic() + 60
    while study.record().state != "paused" and time.monotonic() < deadline:
        time.sleep(0.01)
    assert study.record().sequence - held[0].sequence <= 1  # "paused" came next
    study.resume()
    study.wait()
    same(latest(study), latest(whole))


def test_without_time_there_is_no_stage(finished):
    assert not any(event.stage == "hessian" for event in finished.store.events())
    with pytest.raises(ParedownError, match="hessian_seconds must be a time of at least 0, got -1; 0 leaves the true Hessian out"):
        StudyConfig(hessian_seconds=-1)


def test_time_that_is_up_ends_the_run_with_what_there_is(bert, tmp_path):
    record = study_of(tmp_path, bert, seconds=1e-6).run()
    assert record.state == "done"
    assert record.stage == "hessian"
    more = study_of(tmp_path, bert, seconds=0)  # less or more time is no other study
    assert more.run().state == "done"


class _Once(torch.autograd.Function):
    @staticmethod
    def forward(context, values):
        return values.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(context, gradients):
        return gradients


@pytest.mark.parametrize(
    ("task", "words"),
    [
        (lambda: task_of(loss=lambda model, batch: _Once.apply(model(**batch.inputs).logits).square().sum(-1)), "differentiated twice"),
        (lambda: task_of(labels=False), "expected labels for the loss"),
    ],
    ids=["differentiable once", "no labels"],
)
def test_a_loss_without_hessian_is_a_notice_and_no_failure(bert, tmp_path, stage_asks_for_little, task, words):
    study = study_of(tmp_path, bert, seconds=10_000, task=task())
    record = study.run()
    assert record.state == "done"
    (notice,) = (event for event in record.log if event.kind == "notice" and "true Hessian" in event.message)
    assert words in notice.message
    assert not estimates(study, EigenvalueEstimate)
    assert set(record.quadratic_fits) == {layer.name for layer in record.layers}  # how far predictions hold can be measured all the same


def test_memory_that_one_layer_lacks_costs_that_layer_only(whole, bert, tmp_path, stage_asks_for_little, monkeypatch):
    real = stage.HessianBlocks.__getitem__

    def block(blocks, layer):
        if layer.name == QUERY:
            raise MemoryError("cannot allocate")
        return real(blocks, layer)

    monkeypatch.setattr(stage.HessianBlocks, "__getitem__", block)
    study = study_of(tmp_path, bert, seconds=10_000)
    record = study.run()
    assert record.state == "done"
    assert any(
        f"the Hessian of {QUERY} could not be estimated, and the run goes on: cannot allocate" == event.message for event in record.log
    )
    missing = {layer.name for layer in record.layers if record.estimates(layer.name, "hessian").eigenvalues is None}
    assert missing == {QUERY}


# -- on demand


def test_some_layers_on_demand(bert, tmp_path):
    study = study_of(tmp_path, bert)
    study.run()
    seen = []
    study.estimate(dataclasses.replace(ROUGHLY, layers=(POOLER, QUERY), quantities=("eigenvalues", "fit")), seen.append).wait()
    record = study.record()
    assert record.state == "done"
    assert [value.layer for value in estimates(study, EigenvalueEstimate)] == [POOLER, QUERY]
    assert set(record.quadratic_fits) == {POOLER, QUERY}
    assert record.quadratic_fits[QUERY].negative_share is None
    assert record.estimates(QUERY, "hessian").trace is None
    assert {event.stage for event in seen if event.kind == "curvature"} == {"hessian"}
    count = len(study.store.payloads(EigenvalueEstimate))
    study.estimate(dataclasses.replace(ROUGHLY, layers=(QUERY,), quantities=("eigenvalues",))).wait()  # known by now
    assert len(study.store.payloads(EigenvalueEstimate)) == count
    with pytest.raises(ParedownError, match="names layers that the model does not have: nowhere"):
        study.estimate(CurvatureRequest(layers=("nowhere",)))


def test_what_is_asked_for_goes_ahead_of_the_run(bert, tmp_path):
    study = study_of(tmp_path, bert)

    def ask(event):
        if event.kind == "candidates" and event.done == 2:
            study.estimate(dataclasses.replace(ROUGHLY, layers=(QUERY,), quantities=("eigenvalues",)))

    study.start(ask).wait()
    kinds = [(event.stage, event.kind) for event in study.store.events()]
    assert kinds.index(("hessian", "curvature")) < kinds.index(("search", "front"))
    stages = [event.stage for event in study.store.events() if event.kind == "candidates"]
    assert set(stages) == {"sensitivity"}  # and the run goes on in its own stage
    assert study.record().state == "done"


def test_traces_do_not_depend_on_how_the_samples_are_batched(whole, bert, tmp_path):
    merged = [
        Batch(
            {name: torch.cat([batch.inputs[name] for batch in batches(0, 8)]) for name in ("input_ids", "attention_mask")},
            torch.cat([batch.targets for batch in batches(0, 8)]),
            tuple(range(8)),
        )
    ]
    task = tasks.custom(lambda model: 1.0, batches=batches(100, 4), calibration=merged, higher_is_better=True, name="own")
    study = study_of(tmp_path, bert, task=task)
    study.estimate(dataclasses.replace(ROUGHLY, quantities=("trace",))).wait()
    for layer in study.record().layers:
        mine, other = (each.record().estimates(layer.name, "hessian").trace for each in (study, whole))
        assert mine.value == pytest.approx(other.value, abs=1e-4 * other.yardstick)


# -- what it is for


def test_allocation_by_any_sensitivity_of_the_record(whole):
    from paredown.search import allocate

    problem = whole.problem("hessian")
    budget = (problem.smallest_bytes + problem.largest_bytes) // 2
    plans = {objective: allocate(problem, budget, objective=objective) for objective in ("guarded_loss", "trace", "top_eigenvalue")}
    assert all(problem.predict(plan).bytes <= budget for plan in plans.values())
    by_ggn = whole.problem().costs("trace")
    assert any((mine != other).any() for mine, other in zip(problem.costs("trace"), by_ggn, strict=True))
    with pytest.raises(ParedownError, match="'slices' needs an estimate"):
        problem.costs("slices")


def test_candidates_of_an_earlier_version_open_without_the_new_fields(whole):
    from paredown.specs import Candidate, from_json, to_json

    candidate = next(iter(next(iter(whole.record().candidates.values())).values()))
    text = to_json(candidate).replace(f', "weight_error": {candidate.weight_error}', "")
    assert "weight_error" not in text
    assert from_json(Candidate, text).weight_error == 0
    old = to_json(StudyConfig()).replace('"hessian_seconds": 60.0, ', "")
    assert "hessian" not in old
    assert from_json(StudyConfig, old) == StudyConfig()
