"""`paredown kernels` as a person and as a program read it."""

from __future__ import annotations

import json

import pytest
import torch

from paredown.cli import main
from paredown.kernels.cpu import library

SMALL = ["--shape", "32x64", "--tokens", "1,3", "--rounds", "1"]
LIBRARY, _ = library.load()


def said(capsys, *arguments):
    with pytest.raises(SystemExit) as end:
        main(["kernels", *arguments])
    return end.value.code, capsys.readouterr()


def test_the_table_says_who_serves_each_scheme_and_why_others_do_not(capsys):
    code, out = said(capsys, *SMALL, "--schemes", "int4g64,2:4")
    assert code == 0
    assert "our kernels: " in out.out
    assert torch.cuda.is_available() or "there is no CUDA device" in out.out
    assert "times the speed of torch's bfloat16 product" in out.out
    text = " ".join(out.out.split())
    assert "it takes plain integers of 4 bits" in text
    assert "dequantized when loaded" in text


def test_a_program_gets_every_backend_with_its_measured_speed(capsys):
    code, out = said(capsys, *SMALL, "--schemes", "int4g64a8", "--json")
    assert code == 0
    answer = json.loads(out.out)
    rows = {row["backend"]: row for row in answer["rows"]}
    assert set(rows) == {"ours", "int4pack", "dense"}
    assert [name for name, row in rows.items() if row["chosen"]] == ["ours" if LIBRARY else "dense"]
    assert set(rows["dense"]["ratios"]) == {"1", "3"}
    assert all(ratio > 0 for ratio in rows["dense"]["ratios"].values())
    assert rows["int4pack"]["ratios"] == {}


@pytest.mark.parametrize("wrong", [["--shape", "32"], ["--shape", "axb"], ["--tokens", "1,x"], ["--tokens", "0"]])
def test_a_shape_that_is_none_is_a_mistake(capsys, wrong):
    code, out = said(capsys, *wrong)
    assert code == 2
    assert "expected a shape such as 3072x768 and tokens such as 1,16,128" in out.err
