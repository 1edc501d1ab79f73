"""`Explorer` as a notebook's user meets it, without a browser."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go
import pytest

from fake_study import FakeStudy, filled
from paredown.errors import ParedownError
from paredown.specs import Plan, Scheme
from paredown_widgets import Change, Explorer

FC1 = "bert.encoder.layer.0.intermediate.dense"
Q = "bert.encoder.layer.0.attention.self.query"


@pytest.fixture
def explorer(study: FakeStudy):
    made = Explorer(study)
    yield made
    made.close()


def test_the_plan_is_a_plain_value_that_can_be_assigned(explorer: Explorer) -> None:
    assert isinstance(explorer.plan, Plan)
    explorer.plan = {**explorer.plan.schemes, FC1: "int8g64"}
    assert explorer.plan.schemes[FC1] == Scheme.parse("int8g64")
    before = explorer.plan
    explorer.plan = dict.fromkeys(before.schemes, "int3g64")
    explorer.plan = before
    assert explorer.plan == before


def test_a_plan_of_another_model_is_refused(explorer: Explorer) -> None:
    before = explorer.plan
    with pytest.raises(ParedownError, match=r"was made for weights ffff.*load a plan for the same model"):
        explorer.plan = replace(before, model_digest="ffff")
    with pytest.raises(ParedownError, match="names layers that this study does not have: head"):
        explorer.plan = {"head": "int4g64"}
    assert explorer.plan == before


def test_observers_hear_of_changes_until_they_leave(explorer: Explorer) -> None:
    heard: list[Change] = []
    leave = explorer.observe(heard.append, names=["plan", "selection"])
    explorer.selection = [Q]
    assert [(change.name, change.old) for change in heard] == [("selection", [])]
    assert heard[0].owner is explorer
    assert len(heard[0].new) == 3  # q, k and v are one decision
    explorer.plan = {**explorer.plan.schemes, FC1: "int8g64"}
    assert heard[-1].name == "plan"
    assert heard[-1].new == explorer.plan
    leave()
    explorer.selection = []
    assert len(heard) == 2
    with pytest.raises(ParedownError, match="observe knows plan, selection"):
        explorer.observe(print, names="weather")


def test_the_error_of_an_observer_is_shown_and_others_still_hear(explorer: Explorer) -> None:
    heard: list[Change] = []
    explorer.observe(lambda change: 1 / 0)
    explorer.observe(heard.append)
    explorer.plan = {**explorer.plan.schemes, FC1: "int8g64"}
    assert explorer.model.error["text"] == "An observer of plan failed: ZeroDivisionError: division by zero"
    assert len(heard) == 1


def test_a_mistake_from_python_is_raised(explorer: Explorer) -> None:
    with pytest.raises(ParedownError, match="no layer 'nowhere'"):
        explorer.selection = ["nowhere"]
    with pytest.raises(ParedownError, match="positive number of bytes"):
        explorer.budget = -3
    assert explorer.model.error is None


def test_the_table_has_a_row_for_every_layer(explorer: Explorer) -> None:
    table = explorer.to_dataframe()
    assert isinstance(table, pd.DataFrame)
    assert table.index.tolist() == [layer.name for layer in explorer.model.record.layers]
    prediction = explorer.model.predict()
    assert table["bytes"].sum() + explorer.model.record.info.fixed_bytes == prediction.bytes == explorer.plan.bytes
    assert table["loss_increase"].sum() == pytest.approx(prediction.loss_increase)


@pytest.mark.parametrize("name", ["front", "accuracy", "loss", "spectrum", "spectra"])
def test_figures_are_for_papers(explorer: Explorer, name: str) -> None:
    figure = explorer.figure(name)
    assert isinstance(figure, go.Figure)
    assert "token:" not in figure.to_json()
    assert len(figure.data) > 1


def test_an_unknown_figure_is_named(explorer: Explorer) -> None:
    with pytest.raises(ParedownError, match="figure must be one of front, accuracy"):
        explorer.figure("back")


def test_unknown_settings_get_a_hint(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"no setting 'calibration_sample'; did you mean calibration_samples\?"):
        Explorer("demo:sentiment", folder=tmp_path / "s", calibration_sample=3)
    with pytest.raises(ParedownError, match="org/model needs a task"):
        Explorer("org/model", folder=tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_a_study_is_opened_again_from_its_folder(done_folder: Path) -> None:
    explorer = Explorer(str(done_folder))
    assert explorer.state == "done"
    assert explorer.model.measurements == 22
    explorer.close()


def test_plan_locks_and_budget_outlive_the_kernel(done_folder: Path) -> None:
    first = Explorer(str(done_folder))
    first.plan = {**first.plan.schemes, FC1: "int8g64"}
    first._do({"type": "lock", "layers": [FC1], "locked": True})
    first.budget = 12_000_000
    plan = first.plan
    first.close()
    again = Explorer(str(done_folder))
    assert (again.plan, again.locked, again.budget) == (plan, (FC1,), 12_000_000)
    assert again.model.edits() == 1
    again.close()


@pytest.mark.parametrize("left", ["", "{", '{"schema": 2}', '{"schema": 1, "model_digest": "0123456789abcdef", "schemes": 3}'])
def test_a_damaged_memory_is_no_hindrance(done_folder: Path, left: str) -> None:
    (done_folder / "explorer.json").write_text(left)
    explorer = Explorer(str(done_folder))
    assert explorer.state == "done"
    assert explorer.model.error is None
    assert explorer.model.measurement() is not None
    explorer.close()


def test_text_tells_the_numbers(explorer: Explorer) -> None:
    text = repr(explorer)
    assert text.startswith("Explorer(MiniLM-L6, movie-review sentiment; done, 22 plans measured; plan ")
    assert "measured accuracy 8" in text


def test_a_run_can_be_awaited_paused_resumed_and_cancelled(tmp_path: Path) -> None:
    explorer = Explorer(FakeStudy(tmp_path, blocks=2, pause_each=0.02))
    beside = 0

    async def notebook() -> None:
        nonlocal beside

        async def other_cell() -> None:
            nonlocal beside
            while not done.is_set():
                beside += 1
                await asyncio.sleep(0.01)

        done = asyncio.Event()
        other = asyncio.create_task(other_cell())
        explorer.run()
        assert explorer.state == "running"
        explorer.pause()
        await asyncio.sleep(0.3)
        assert explorer.state == "paused"
        explorer.resume()
        await asyncio.sleep(0.1)
        explorer.cancel()
        await explorer
        done.set()
        await other

    asyncio.run(notebook())
    assert explorer.state == "cancelled"
    assert beside > 10
    assert explorer.run().wait().state == "done"
    explorer.close()


def test_measure_lands_as_a_point(tmp_path: Path) -> None:
    explorer = Explorer(filled(tmp_path, blocks=1))
    heard: list[Change] = []
    explorer.observe(heard.append, names="measurements")
    explorer.plan = {**explorer.plan.schemes, FC1: "int8g64"}
    plan = explorer.measure()
    deadline = time.monotonic() + 10
    while not heard:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert plan.digest in explorer.model.record.measurements
    explorer.close()


def test_export_goes_to_the_study(tmp_path: Path) -> None:
    study = filled(tmp_path / "study", blocks=1)
    explorer = Explorer(study)
    assert explorer.export(tmp_path / "out") == tmp_path / "out"
    assert study.exported == [(explorer.plan, tmp_path / "out")]
    explorer.close()


def test_a_display_without_a_browser_keeps_a_picture(explorer: Explorer, monkeypatch: pytest.MonkeyPatch) -> None:
    import IPython.display

    shown: list[dict] = []
    monkeypatch.setattr(IPython.display, "display", lambda bundle, **_: shown.append(bundle))
    explorer._ipython_display_()
    assert [sorted(bundle) for bundle in shown] == [
        ["application/vnd.jupyter.widget-view+json", "text/plain"],
        ["image/svg+xml", "text/plain"],
    ]
    assert shown[0]["text/plain"] == repr(explorer)


def test_no_push_imports_torch(tmp_path: Path) -> None:
    """It takes seconds, in which nobody would see what happens."""
    filled(tmp_path, blocks=1)
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r})\nfrom fake_study import FakeStudy\nfrom paredown_widgets.model import ExplorerModel\n"
        "from paredown_widgets.handlers import handle\nfrom paredown_widgets.snapshot import snapshot\n"
        f"model = ExplorerModel(FakeStudy({str(tmp_path)!r}, blocks=1)); model.refresh(); before = snapshot(model)\n"
        "handle(model, {'type': 'select', 'layers': list(model.labels)[1:2], 'mode': 'replace'}); handle(model, {'type': 'opened', 'id': 'layer'})\n"
        "after = snapshot(model); print(len(before['spectrum']['figure']['data']) > 0, after['layer_spectrum'] != before['layer_spectrum'], 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True", "False"]


def test_importing_the_package_is_quick() -> None:
    code = "import sys, paredown_widgets; print([m for m in ('torch', 'plotly', 'panel', 'anywidget', 'pandas') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    code = code.replace("; print", "; paredown_widgets.Explorer; print")
    assert "panel" not in subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
