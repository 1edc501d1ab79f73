"""What the README says is run."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.demo
def test_the_ten_lines_of_python_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code = re.search(r"## Ten lines of Python\n\n```python\n(.*?)```", README, re.DOTALL)[1]
    smaller = code.replace(
        'task="demo:sentiment"', 'task="demo:sentiment", calibration_samples=32, held_out_samples=50, budgets=(4,), hessian_seconds=0.0'
    )
    assert smaller != code
    exec(compile(smaller, "README.md", "exec"), {})
    assert float(capsys.readouterr().out.splitlines()[-1]) > 0
    assert (tmp_path / "exports" / "mine" / "model.safetensors").is_file()


@pytest.mark.demo
def test_the_lines_on_curvature_run(capsys):
    code = re.search(r"The curvature by itself.*?```python\n(.*?)```", README, re.DOTALL)[1]
    fewer = code.replace("samples=32", "samples=8").replace("steps=20", "steps=4")
    assert fewer != code
    names: dict = {}
    exec(compile(fewer, "README.md", "exec"), names)
    top, bottom = names["ends"].values
    assert bottom < 0 < top
    assert capsys.readouterr().out


def test_every_make_target_and_file_that_the_readme_names_exists():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"`?make ([a-z]+)`?", README))
    assert targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    for link in re.findall(r"\]\(([^)#:]+)\)|srcset=\"([^\"]+)\"|src=\"([^\"]+)\"", README):
        path = next(filter(None, link))
        assert (ROOT / path).is_file(), path
