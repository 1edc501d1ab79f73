"""`paredown report` and `paredown app` from the shell's side."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fake_study import FakeStudy
from paredown_widgets import Explorer, app, serve
from paredown_widgets.commands import main


def test_report_writes_one_file_and_says_so(done_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["report", str(done_folder), "--to", str(tmp_path / "new" / "report.html"), "--json"])
    assert end.value.code == 0
    said = json.loads(capsys.readouterr().out)
    text = Path(said["report"]).read_text(encoding="utf-8")
    assert len(text.encode()) == said["bytes"]
    assert "MiniLM-L6, movie-review sentiment · Paredown" in text
    assert "http" not in text.replace("http-equiv", "").split('id="plotly"')[0]


def test_a_folder_without_a_study_is_a_users_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("report", "app"):
        with pytest.raises(SystemExit) as end:
            main([command, str(tmp_path)])
        assert end.value.code == 2
        assert "expected a study in" in capsys.readouterr().err


def test_a_report_that_cannot_be_written_says_where(done_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit) as end:
        main(["report", str(done_folder), "--to", str(tmp_path / "file" / "report.html")])
    assert end.value.code == 2
    assert "choose another place" in capsys.readouterr().err


def test_the_app_is_only_for_this_machine(study: FakeStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    import panel as pn

    asked: dict = {}
    monkeypatch.setattr(pn, "serve", lambda routes, **options: asked.update(options, routes=routes))
    serve(study, port=5010)
    assert asked["address"] == "127.0.0.1"
    assert asked["websocket_origin"] == ["127.0.0.1:5010", "localhost:5010"]
    assert list(asked["routes"]) == ["/"]


def test_several_studies_get_an_address_each(study: FakeStudy) -> None:
    assert app._route(study, [study]) == "/"
    assert app._route(study, [study, study]) == "/done"


def test_an_explorer_can_be_put_into_an_app_of_ones_own(study: FakeStudy) -> None:
    explorer = Explorer(study)
    pane = explorer.servable()
    assert json.loads(pane.front)["count"] == "22 measured"
    pane.close()
    explorer.close()
