"""`paredown shrink` as a shell and as a program use it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from paredown import models
from paredown.cli import main

MODEL = str(Path(__file__).parents[2] / "data" / "fixtures" / "tiny-llama-austen")
FEW = ("--task", "demo:lm", "--calibration", "1", "--held-out", "1")


def said(capsys, *arguments):
    with pytest.raises(SystemExit) as end:
        main(["shrink", *map(str, arguments)])
    return end.value.code, *capsys.readouterr()


def test_the_table_says_what_was_lost_and_how_to_load_the_rest(capsys, tmp_path):
    code, out, _ = said(capsys, MODEL, "--to", tmp_path / "small", "--drop-blocks", 1, "--mlp", 0.5, *FEW)
    assert code == 0
    assert "dropped, influence" in out
    assert "every block keeps 50% of mlp" in out
    for row in ("parameters", "size", "loss, search data", "loss, held-out", "KL, held-out", "flips, held-out", "perplexity, held-out"):
        assert f"│ {row} " in out
    assert f"load it with LlamaForCausalLM.from_pretrained('{tmp_path / 'small'}')" in out
    assert len(models.load(str(tmp_path / "small")).model.model.layers) == 3


def test_json_holds_the_same_figures_and_nothing_else(capsys, tmp_path):
    code, out, _ = said(capsys, MODEL, "--to", tmp_path / "small", "--vo", 0.5, "--qk", 0.5, "--json", *FEW)
    assert code == 0
    read = json.loads(out)
    assert set(read) == {"folder", "plain", "removed", "before", "after"}
    assert not read["plain"]
    assert read["after"]["parameters"] < read["before"]["parameters"]
    assert read["after"]["search_kl"] > 0 == read["before"]["kl"]
    assert models.load(read["folder"]).bytes == read["after"]["bytes"]


def test_a_greedy_search_shows_every_step(capsys, tmp_path):
    code, out, _ = said(capsys, MODEL, "--to", tmp_path / "small", "--greedy", "--threshold", 0, *FEW)
    assert code == 0
    assert "kept   model.layers.3.mlp.down_proj, the MLP: loss" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("demo:sentiment",), "expected something to remove"),
        ((MODEL, "--mlp", "0.5"), "expected --task demo:sentiment or"),
        (("demo:sentiment", "--mlp", "1.5"), "a share of mlp to keep, above 0 and at most 1, got 1.5"),
        ((MODEL, *FEW, "--drop-blocks", "4"), "to drop 1 to 3 of 4 blocks, got 4"),
        ((MODEL, *FEW, "--modegpt", "0.1"), "a share to lose from 0 to the limit of 0.8"),
    ],
)
def test_a_mistake_is_one_line(capsys, tmp_path, arguments, words):
    code, out, err = said(capsys, *arguments, "--to", tmp_path / "small")
    assert (code, out) == (2, "")
    assert words in err
    assert err.count("\n") == 1
    assert not (tmp_path / "small").exists()
