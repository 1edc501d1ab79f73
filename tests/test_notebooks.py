"""Every notebook runs from top to bottom, on fewer samples, and is committed with a picture in it."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


@pytest.mark.demo
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAREDOWN_QUICK", "1")
    monkeypatch.setenv("PAREDOWN_STUDY", str(tmp_path / "study"))
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    pictures = [output for cell in notebook.cells for output in cell.get("outputs", ()) if "image/svg+xml" in output.get("data", {})]
    assert any("Done" in output["data"]["image/svg+xml"] for output in pictures)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_committed_notebook_has_a_picture_and_no_place_of_a_machine(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert "image/svg+xml" in text
    assert "Traceback" not in text
    assert "/home/" not in text
    assert "/root/" not in text
    assert len(text) < 400_000
