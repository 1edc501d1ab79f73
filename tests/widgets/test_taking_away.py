"""What leaves the explorer: verdicts of the formats, tables, and every chart as a figure and as code."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pandas as pd
import pytest

import fake_refinement
from fake_study import FakeStudy, filled
from paredown_widgets import Explorer, exports
from paredown_widgets.handlers import handle
from paredown_widgets.model import ExplorerModel
from paredown_widgets.paper_figures import FIGURES, as_code
from paredown_widgets.snapshot import snapshot


def opened(study: FakeStudy) -> ExplorerModel:
    model = ExplorerModel(study)
    model.refresh()
    return model


def target(model: ExplorerModel, name: str) -> dict[str, str]:
    return next(each for each in snapshot(model)["export"]["targets"] if each["id"] == name)


def test_what_a_format_cannot_hold_is_refused_beforehand_with_the_reason(model: ExplorerModel, hand) -> None:
    assert "asking" in target(model, "compressed-tensors")["note"]
    exports.ask(model)
    refused = target(model, "compressed-tensors")
    assert "can't load packed zero points" in refused["refused"]
    assert refused["refused"].startswith(("Block", "Embeddings"))
    assert target(model, "paredown")["refused"] == ""
    assert "is not possible" in hand.refused("export", target="compressed-tensors")
    hand("preset", id="uniform int8g64")
    assert "asking" in target(model, "compressed-tensors")["note"]  # another plan: another question
    assert target(model, "compressed-tensors")["refused"] == ""


def test_a_plan_that_a_format_can_hold_is_exported_in_it(tmp_path: Path) -> None:
    study = filled(tmp_path, blocks=1, schemes=("int4g64sym", "int8g64sym"))
    model = opened(study)
    handle(model, {"type": "export", "target": "paredown"})
    if model.exporting is not None:
        model.exporting.join(10)
    assert study.exported[0][1].name == "paredown"
    assert model.export_status["kind"] == "ok"


def test_the_table_is_written_as_csv(model: ExplorerModel) -> None:
    handle(model, {"type": "export", "target": "csv"})
    if model.exporting is not None:
        model.exporting.join(10)
    path = Path(model.export_status["status"].removeprefix("Written to "))
    table = pd.read_csv(path, index_col="layer")
    assert list(table.index) == list(model.editor.schemes)
    assert list(table["scheme"]) == [str(scheme) for scheme in model.editor.schemes.values()]


@pytest.mark.parametrize("there", [True, False])
def test_parquet_says_what_to_install_where_nothing_can_write_it(
    model: ExplorerModel, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    exports._has_parquet.cache_clear()
    monkeypatch.setattr(exports, "find_spec", lambda name: types.SimpleNamespace() if there else None)
    assert target(model, "parquet")["refused"] == ("" if there else "pandas needs pyarrow for it: pip install pyarrow")
    exports._has_parquet.cache_clear()


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> ExplorerModel:
    return opened(fake_refinement.refined(filled(tmp_path_factory.mktemp("everything"), blocks=2, timed=True)))


@pytest.mark.parametrize("name", FIGURES)
def test_every_chart_is_a_figure_and_code_that_makes_it(everything: ExplorerModel, name: str) -> None:
    explorer = Explorer(everything.study)
    explorer.selection = [everything.record.layers[1].name]  # a layer's own charts are of the one that is picked
    figure = explorer.figure(name)
    explorer.close()
    assert len(figure.data) > 0
    names: dict[str, object] = {}
    exec(as_code(explorer.model, name), names)
    assert names["figure"] == figure
    assert "token:" not in figure.to_json()
    assert "plotly" in sys.modules
