"""The commands as a shell and as a program use them: output, JSON, exit codes, and one line for a mistake."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from paredown import demos
from paredown.errors import ParedownError
from paredown.export import load_plan, native, save_plan
from paredown.specs import Scheme, StudyConfig
from paredown.store import Store
from paredown_widgets.commands import main

MODEL = str(Path(__file__).parents[1] / "data" / "fixtures" / "tiny-llama-austen")
SIZE = ["--task", "demo:lm", "--calibration", "2", "--held-out", "2", "--hessian-seconds", "0", "--schemes", "int3g64sym,int8g64sym"]
COMMANDS = ("run", "status", "plans", "curvature", "compare", "agreement", "export", "report", "app", "fetch", "shrink", "kernels")
ROW = {
    "plan",
    "predicted_seconds_per_token",
    "predicted_seconds_per_token_sd",
    "found_by",
    "bytes",
    "ratio",
    "metric",
    "value",
    "low",
    "high",
    "loss",
    "kl",
    "kl_sd",
    "predicted_kl",
    "flips",
    "kv_cache_bits",
    "kv_cache_bytes",
    "n",
    "split",
    "on_front",
}


class Said(NamedTuple):
    code: int
    out: str
    err: str


Paredown = Callable[..., Said]


@pytest.fixture
def paredown(capsys: pytest.CaptureFixture[str]) -> Paredown:
    def call(*arguments: object) -> Said:
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main([str(argument) for argument in arguments])
        assert isinstance(end.value.code, int)
        return Said(end.value.code, *capsys.readouterr())

    return call


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "study"
    with pytest.raises(SystemExit) as end:
        main(["run", MODEL, "--study", str(folder), *SIZE])
    assert end.value.code == 0
    return folder


@pytest.fixture
def study(template: Path, tmp_path: Path) -> Path:
    """A finished study; each test has a copy of its own."""
    return Path(shutil.copytree(template, tmp_path / "study"))


def a_mistake(said: Said, *words: str) -> None:
    """Nothing on standard output, one line on standard error, exit code 2."""
    assert said.code == 2
    assert said.out == ""
    assert said.err.startswith("paredown: ")
    assert said.err.count("\n") == 1
    for word in words:
        assert word in said.err


# -- help


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example_that_can_be_copied(paredown: Paredown, command: str) -> None:
    said = paredown(command, "--help")
    assert said.code == 0
    assert f"\n  Example: paredown {command} " in said.out
    assert said.out.rstrip().splitlines()[-1].lstrip().startswith("Example: ")  # not wrapped
    assert "--debug" in said.out
    assert ("--json" in said.out) == (command != "app")


def test_help_lists_the_commands(paredown: Paredown) -> None:
    said = paredown("--help")
    assert said.code == 0
    assert [line.split()[0] for line in said.out.split("Commands:\n")[1].splitlines()] == [
        *("run", "status", "plans", "curvature", "compare", "agreement", "export", "fetch", "shrink", "kernels", "report", "app")
    ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["bogus"], "No such command 'bogus'"),
        (["plans"], "Missing argument 'study'"),
        (["plans", "--nope"], "No such option: --nope"),
        (["run", "--seed", "many"], "Invalid value for '--seed': Input should be a valid integer"),
        (["export", "somewhere"], "Missing option '--to'"),
        (["app", "somewhere", "--port", "70000"], "Invalid value for '--port': Input should be less than or equal to 65535"),
    ],
)
def test_a_command_line_that_cannot_be_read(paredown: Paredown, arguments: list[str], words: str) -> None:
    said = paredown(*arguments)
    assert said.code == 2
    assert said.out == ""
    assert words in said.err
    assert "--help' for help" in said.err
    assert "Traceback" not in said.err


# -- what the commands do


def test_run_prints_a_table_and_the_way_on(paredown: Paredown, study: Path) -> None:
    said = paredown("run", MODEL, "--study", study, *SIZE)
    assert said.code == 0
    assert said.err == ""
    for word in (
        "original",
        "uniform int3g64sym",
        "uniform int8g64sym",
        "perplexity (95 %)",
        f"paredown app {study}",
        f"Explorer('{study}')",
    ):
        assert word in said.out


def test_run_twice_changes_nothing(paredown: Paredown, study: Path) -> None:
    before = paredown("plans", study, "--json").out
    kinds = [event.kind for event in Store(study).events() if event.kind in ("candidates", "plan", "measurement")]
    said = paredown("run", MODEL, "--study", study, *SIZE, "--json")
    assert said.code == 0
    assert said.out == before
    assert [event.kind for event in Store(study).events() if event.kind in ("candidates", "plan", "measurement")] == kinds


def test_a_folder_is_known_by_every_name(paredown: Paredown, study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path means the same model from everywhere."""
    monkeypatch.chdir(Path(MODEL).parent)
    assert paredown("run", Path(MODEL).name, "--study", study, *SIZE, "--json").code == 0


def test_plans_as_json_has_a_row_for_every_measured_plan(paredown: Paredown, study: Path) -> None:
    rows = json.loads(paredown("plans", study, "--json").out)
    assert [row["found_by"] for row in rows] == ["original", "uniform int8g64sym", "uniform int3g64sym"]
    assert all(set(row) == ROW for row in rows)
    assert [row["bytes"] for row in rows] == sorted((row["bytes"] for row in rows), reverse=True)
    assert rows[0]["kl"] == 0
    assert rows[-1]["kl"] > rows[1]["kl"] > 0
    table = paredown("plans", study).out
    assert all(row["plan"][:8] in table for row in rows)


def test_plans_says_which_schemes_did_not_fit(paredown: Paredown, tmp_path: Path) -> None:
    assert paredown("run", MODEL, "--study", tmp_path / "s", *SIZE[:-1], "int8g128sym", "--json").code == 0
    said = paredown("plans", tmp_path / "s")
    assert "int8g128sym: the group size 128 does not divide the 192 inputs; 64 is used (" in said.out


def test_status(paredown: Paredown, study: Path) -> None:
    assert json.loads(paredown("status", study, "--json").out) == {
        "state": "done", "stage": "measure", "done": 3, "total": 3, "message": "done", "plans": 3, "measured": 3,
    }  # fmt: skip
    assert paredown("status", study).out == "tiny-llama-austen: done, measure plans 3 of 3; 3 of 3 plans measured\n"
    lines = paredown("status", study, "--json", "--watch").out.splitlines()
    assert [json.loads(line)["state"] for line in lines] == ["done"]


def test_status_of_a_run_that_was_killed(paredown: Paredown, study: Path) -> None:
    Store(study).append("killed", "sensitivity", "started", message="Loading")
    assert json.loads(paredown("status", study, "--json").out)["state"] == "interrupted"


def test_curvature_shows_a_row_a_layer(paredown: Paredown, study: Path) -> None:
    rows = json.loads(paredown("curvature", study, "--json").out)
    assert {row["matrix"] for row in rows} == {"ggn"}
    assert all(row["trace"] > 0 and row["data_sd"] > 0 and row["top"] > 0 and row["verdict"] is None for row in rows)
    table = paredown("curvature", study, "--layers", "*q_proj").out
    shown = [row["layer"] for row in rows if row["layer"] in table]
    assert shown == [row["layer"] for row in rows if row["layer"].endswith("q_proj")]
    assert "whole model" in paredown("curvature", study).out


def test_curvature_estimates_what_is_asked_for(paredown: Paredown, study: Path) -> None:
    asked = ["--layers", "*3*q_proj", "--quantities", "eigenvalues, fit", "--samples", "2"]
    _, row = json.loads(paredown("curvature", study, *asked, "--json").out)
    assert row["matrix"] == "hessian"
    assert row["top"] > row["bottom"]
    assert row["verdict"] in ("yes", "with care", "no", "unknown")
    before = len(Store(study).events(kinds=["curvature"]))
    said = paredown("curvature", study, *asked)  # known by now
    assert len(Store(study).events(kinds=["curvature"])) == before
    assert said.code == 0
    assert row["reason"] in said.out
    assert json.loads(paredown("status", study, "--json").out)["state"] == "done"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--layers", "*nowhere"], "'*nowhere' matches none; the model's layers start with model.embed_tokens"),
        (["--layers", "*nowhere", "--seconds", "1"], "'*nowhere' matches none"),
        (["--quantities", "trace,colour"], "quantities must be among trace, eigenvalues, density, fit, got colour"),
        (["--samples", "1"], "samples must be at least 2, got 1"),
        (["--seconds", "-1"], "seconds must be at least 0, got -1.0"),
    ],
)
def test_curvature_refuses(paredown: Paredown, study: Path, options: list[str], words: str) -> None:
    before = len(Store(study).events())
    a_mistake(paredown("curvature", study, *options), words)
    assert len(Store(study).events()) == before


def test_curvature_of_a_study_that_knows_none(paredown: Paredown, tmp_path: Path) -> None:
    Store(tmp_path, create=True).append("run", "load", "started", payload=[StudyConfig()])
    assert paredown("curvature", tmp_path).out == "Nothing is known of these layers' curvature yet.\n"
    assert json.loads(paredown("curvature", tmp_path, "--json").out) == []


def test_status_and_plans_need_no_torch(study: Path) -> None:
    code = "import sys; from paredown.cli import app; app(sys.argv[1:], standalone_mode=False); print(*{'torch', 'transformers'} & sys.modules.keys())"
    for command in ("status", "plans", "curvature"):
        done = subprocess.run([sys.executable, "-c", code, command, str(study)], capture_output=True, text=True, timeout=60, check=True)
        assert done.stdout.splitlines()[-1] == ""


def test_export_says_how_to_load_what_it_wrote(paredown: Paredown, study: Path, tmp_path: Path) -> None:
    said = paredown("export", study, "--bits", "3", "--to", tmp_path / "out")
    assert said.code == 0
    assert "(uniform int3g64sym)" in said.out
    line = said.out.split("Load it:  ")[1]
    names: dict = {}
    exec(line, names)  # exactly what was printed
    ids = AutoTokenizer.from_pretrained(tmp_path / "out")("Catherine was", return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        assert names["model"](input_ids=ids).logits.isfinite().all()
    assert "AutoModelForCausalLM" in line
    assert type(names["model"]) is type(AutoModelForCausalLM.from_pretrained(MODEL))


def test_export_as_json_and_in_our_own_format(paredown: Paredown, study: Path, tmp_path: Path) -> None:
    digest = json.loads(paredown("plans", study, "--json").out)[-1]["plan"]
    said = json.loads(paredown("export", study, "--plan", digest[:6], "--to", tmp_path / "out", "--format", "paredown", "--json").out)
    assert set(said) == {"folder", "plan", "bytes", "format"}
    assert said["plan"] == digest
    assert said["format"] == "paredown"
    assert said["bytes"] == load_plan(tmp_path / "out").bytes
    shown = paredown("export", study, "--plan", digest, "--to", tmp_path / "out", "--format", "paredown").out
    names: dict = {}
    exec(shown.split("Load it:  ")[1], names)
    assert names["native"] is native
    assert not names["model"].training


def test_export_of_a_plan_file(paredown: Paredown, study: Path, tmp_path: Path) -> None:
    plan = next(plan for plan in Store(study).events() if plan.kind == "plan" and plan.payload[0].found_by.startswith("uniform")).payload[0]
    file = save_plan(plan, tmp_path / "mine.json")
    assert json.loads(paredown("export", study, "--plan", file, "--to", tmp_path / "out", "--json").out)["plan"] == plan.digest


def test_report_as_json(paredown: Paredown, study: Path) -> None:
    said = json.loads(paredown("report", study, "--json").out)
    assert set(said) == {"report", "bytes"}
    assert Path(said["report"]) == study / "report.html"
    assert "MB)" in paredown("report", study).out


def test_app_hands_on_what_it_was_told(paredown: Paredown, study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr("paredown_widgets.app.serve", lambda studies, **options: asked.extend([studies, options]))
    assert paredown("app", study, "--port", 5010, "--no-show").code == 0
    assert asked == [[study], {"port": 5010, "show": False}]


def test_fetch_tells_what_it_does(paredown: Paredown, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fake(name: str, *, progress: Callable[[str], None]) -> Path:
        progress(f"downloading {name} (1 MB)")
        return tmp_path / name

    monkeypatch.setattr(demos, "fetch", fake)
    assert paredown("fetch").out == f"downloading sentiment (1 MB)\nsentiment: {tmp_path / 'sentiment'}\n"
    assert json.loads(paredown("fetch", "demo:lm", "vision", "--json").out) == {"demo:lm": f"{tmp_path}/lm", "vision": f"{tmp_path}/vision"}
    a_mistake(paredown("fetch", "lm", "nope"), "expected one of the demos sentiment, vision, speech, lm, got 'nope'")


# -- mistakes


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["demo:nope"], "expected one of the demos sentiment, vision, speech, lm, got 'nope'"),
        ([MODEL], "expected --task demo:sentiment or demo:vision or demo:speech or demo:lm, got none"),
        ([MODEL, "--task", "nope"], "got nope"),
        ([MODEL, "--task", "demo:lm", "--schemes", "int4g64,4bit"], "expected a scheme such as int4g64, int8, int3g32sym, int4g64-mse or keep, got '4bit'"),
        ([MODEL, "--task", "demo:lm", "--schemes", ""], "expected a scheme such as"),
        ([MODEL, "--task", "demo:lm", "--format", "gguf"], "export_format must be one of auto, compressed-tensors, paredown, got 'gguf'"),
        ([MODEL, "--task", "demo:lm", "--budgets", "3;4"], "expected numbers with commas between them, such as 2.5,3,4, got '3;4'"),
        ([MODEL, "--task", "demo:lm", "--budgets", "1.5"], "got 1.5 bits: the smallest possible is 2 bits, the largest 8"),
        ([MODEL, "--task", "demo:lm", "--budgets", "nan"], "got nan bits: the smallest possible is 2 bits"),
        ([MODEL, "--task", "demo:lm", "--calibration", "0"], "calibration_samples must be at least 1, got 0"),
        ([MODEL, "--task", "demo:lm", "--hessian-seconds", "-1"], "hessian_seconds must be a time of at least 0, got -1"),
    ],
)  # fmt: skip
def test_run_refuses_before_it_makes_a_study(paredown: Paredown, tmp_path: Path, arguments: list[str], words: str) -> None:
    a_mistake(paredown("run", *arguments, "--study", tmp_path / "study"), words)
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize("as_json", [[], ["--json"]])
def test_a_model_that_is_nowhere(paredown: Paredown, tmp_path: Path, as_json: list[str]) -> None:
    said = paredown("run", "nobody/nothing", "--task", "demo:lm", "--study", tmp_path / "study", *as_json)
    assert said.code == 2
    assert said.err.startswith("paredown: expected a local folder or a model of the Hugging Face hub, cannot get nobody/nothing")
    assert said.err.count("\n") == 1
    assert "cannot get nobody/nothing" in json.loads(paredown("status", tmp_path / "study", "--json").out)["message"]
    assert "cannot get nobody/nothing" in paredown("status", tmp_path / "study").out
    assert paredown("run", MODEL, "--study", tmp_path / "study", *SIZE).code == 0  # the same folder, the name mended


@pytest.mark.parametrize("command", ["status", "plans", "curvature", "report", "app", "export"])
def test_a_study_that_does_not_exist(paredown: Paredown, tmp_path: Path, command: str) -> None:
    more = ["--bits", "3", "--to", tmp_path / "out"] if command == "export" else []
    a_mistake(paredown(command, tmp_path / "none", *more), f"expected a study in {tmp_path / 'none'}", "start one with `paredown run")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["status", "plans", "curvature", "report"])
def test_a_study_that_was_never_started(paredown: Paredown, tmp_path: Path, command: str) -> None:
    Store(tmp_path, create=True)
    a_mistake(paredown(command, tmp_path), "was never started")


def test_a_study_without_measurements(paredown: Paredown, tmp_path: Path) -> None:
    Store(tmp_path, create=True).append("run", "load", "started", payload=[StudyConfig()])
    assert paredown("plans", tmp_path).out == "Nothing is measured yet.\n"
    assert json.loads(paredown("plans", tmp_path, "--json").out) == []
    a_mistake(paredown("export", tmp_path, "--bits", "3", "--to", tmp_path / "out"), "let the run go on to its search")


def test_other_settings_are_refused(paredown: Paredown, study: Path) -> None:
    a_mistake(paredown("run", MODEL, "--study", study, *SIZE, "--seed", 1), "other settings (seed 0 → 1)", "choose another folder")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--plan", "zzz"], "0 plans begin with 'zzz'; see them with `paredown plans`"),
        (["--plan", ""], "3 plans begin with ''"),
        ([], "expected either a plan (its digest or file) or a number of bits"),
        (["--plan", "a", "--bits", "3"], "expected either a plan"),
        (["--plan", "a.json", "--bits", "3"], "expected either a plan"),
        (["--plan", "none.json"], "expected a plan in none.json, but it can't be read: No such file"),
        (["--bits", "1"], "expected 3 to 8 bits, what the uniform plans have, got 1: the smallest possible is"),
        (["--bits", "3", "--format", "gguf"], "--format must be one of compressed-tensors, paredown, got 'gguf'"),
    ],
)
def test_export_refuses(paredown: Paredown, study: Path, tmp_path: Path, options: list[str], words: str) -> None:
    a_mistake(paredown("export", study, "--to", tmp_path / "out", *options), words)
    assert not (tmp_path / "out").exists()


def test_export_refuses_plans_of_other_models(paredown: Paredown, study: Path, tmp_path: Path) -> None:
    plan = next(event.payload[0] for event in Store(study).events() if event.kind == "plan")
    before = Store(study).events()
    other = save_plan(replace(plan, model_digest="f" * 16), tmp_path / "other.json")
    a_mistake(
        paredown("export", study, "--plan", other, "--to", tmp_path / "out"), "with digest ffffffffffffffff", "search a plan for this one"
    )
    unknown = save_plan(replace(plan, schemes={"model.embed_token": Scheme.parse("int8")}), tmp_path / "unknown.json")
    a_mistake(paredown("export", study, "--plan", unknown, "--to", tmp_path / "out"), "did you mean model.embed_tokens?")
    assert not (tmp_path / "out").exists()
    assert Store(study).events() == before


def test_debug_shows_where_a_mistake_came_from(paredown: Paredown, tmp_path: Path) -> None:
    said = paredown("plans", tmp_path, "--debug")
    assert said.code == 2
    assert said.err.startswith("Traceback")
    assert 'store.py", line' in said.err
    assert said.err.splitlines()[-1].startswith("paredown: expected a study")


def test_a_fault_of_ours_is_no_users_mistake(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paredown.cli.print_plans", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["plans", str(study)])


# -- interrupts


def test_an_interrupt_has_its_own_exit_code(paredown: Paredown, study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("paredown.cli.print_plans", interrupt)
    assert paredown("plans", study) == Said(
        130, "", "paredown: interrupted; what was written is kept, and the same command goes on from there\n"
    )


def test_ctrl_c_in_a_run_then_the_same_command(paredown: Paredown, study: Path, tmp_path: Path) -> None:
    folder = tmp_path / "stopped"
    command = [sys.executable, "-m", "paredown.cli", "run", MODEL, "--study", str(folder), *SIZE]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    ) as process:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and process.poll() is None:
            try:
                if any(event.kind == "candidates" for event in Store(folder).events()):
                    break
            except ParedownError:
                pass  # the file is not there yet
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == "paredown: interrupted; what was written is kept, and the same command goes on from there\n"
    assert json.loads(paredown("status", folder, "--json").out)["state"] == "cancelled"
    assert paredown("run", MODEL, "--study", folder, *SIZE, "--json").out == paredown("plans", study, "--json").out


def test_what_libraries_print_stays_out_of_the_json():
    """From Python and from C, whose buffer is written late."""
    code = (
        "import ctypes\n"
        "from paredown.cli_output import only_json, print_json\n"
        "with only_json():\n"
        "    print('from Python')\n"
        "    ctypes.CDLL(None).puts(b'from C')\n"
        "print_json({'a': 1})\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {"a": 1}
    assert "from C" in done.stderr
    assert "from Python" in done.stderr
