"""What a benchmark keeps between its runs."""

import importlib
from pathlib import Path

import pytest

from paredown.errors import ParedownError


@pytest.fixture
def kept(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    return importlib.import_module("_kept")


def fails():
    raise AssertionError("what is kept is not made again")


def test_values_are_made_once_over_runs_also_after_one_that_was_killed_while_writing(kept, tmp_path):
    path = tmp_path / "folder" / "values.jsonl"
    first = kept.Kept(path, {"seed": 0})
    assert first.get("a", lambda: [1.5, 2.0]) == [1.5, 2.0]
    first.get("b", lambda: {"kl": 3})
    path.write_text(path.read_text() + '["c", [1, 2')
    again = kept.Kept(path, {"seed": 0})
    assert again.get("a", fails) == [1.5, 2.0]
    assert again.get("b", fails) == {"kl": 3}
    assert again.get("c", lambda: 7) == 7
    assert kept.Kept(path, {"seed": 0}).get("c", fails) == 7


def test_values_of_other_settings_are_refused(kept, tmp_path):
    kept.Kept(tmp_path / "values.jsonl", {"seed": 0, "schemes": ("int2g64",)})
    kept.Kept(tmp_path / "values.jsonl", {"seed": 0, "schemes": ("int2g64",)})
    with pytest.raises(ParedownError, match=r"made at other settings: expected .*'seed': 1.*, got .*'seed': 0.*; name another folder"):
        kept.Kept(tmp_path / "values.jsonl", {"seed": 1, "schemes": ("int2g64",)})


def test_nothing_is_written_without_a_file(kept):
    values = kept.Kept(None, {})
    assert [values.get("a", lambda: 1), values.get("a", fails)] == [1, 1]
    assert kept.digest({"b": 1, "a": 2}) == kept.digest({"a": 2, "b": 1}) != kept.digest({"a": 1, "b": 2})
