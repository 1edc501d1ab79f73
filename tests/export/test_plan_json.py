from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paredown.errors import ParedownError
from paredown.export import load_plan, save_plan
from paredown.specs import BITS, GROUP_SIZES, KEEP, LayerRef, Plan, Scheme, WeightFormat

LAYERS = (
    LayerRef("encoder.0.query", "linear", "q", "encoder.0", (8, 64), "float32"),
    LayerRef("table", "embedding", "embedding", "", (100, 64), "float32", ("head",)),
)
PLAN = Plan("demo:sentiment", "0123456789abcdef", {"encoder.0.query": Scheme(WeightFormat(3, 32)), "table": KEEP}, 1234, 0.5, 0.1, "ggn", 7)

schemes = st.one_of(
    st.just(KEEP),
    st.builds(
        Scheme,
        st.builds(WeightFormat, st.sampled_from(BITS), st.sampled_from([*GROUP_SIZES, None]), st.booleans()),
        st.sampled_from(["rtn", "mse"]),
    ),
)


@given(st.dictionaries(st.text(min_size=1), schemes), st.integers(0, 2**40), st.integers(0, 2**31))
def test_a_plan_comes_back_as_it_was(tmp_path_factory, chosen, size, seed):
    path = tmp_path_factory.mktemp("plan") / "plan.json"
    plan = Plan("hub/model", "f" * 16, chosen, size, 0.25, None, "user", seed)
    assert load_plan(save_plan(plan, path)) == plan


def test_the_file_says_names_schemes_schema_and_digest(tmp_path):
    plain = json.loads(save_plan(PLAN, tmp_path / "plan.json").read_text())
    assert plain["schemes"] == {"encoder.0.query": "int3g32", "table": "keep"}
    assert plain["schema"] == 1
    assert plain["model_digest"] == "0123456789abcdef"
    assert list(tmp_path.iterdir()) == [tmp_path / "plan.json"]


def test_it_is_read_from_an_exported_folder_too(tmp_path):
    save_plan(PLAN, tmp_path / "paredown.json")
    assert load_plan(tmp_path, model_digest="0123456789abcdef", layers=LAYERS) == PLAN


@pytest.fixture
def path(tmp_path):
    return save_plan(PLAN, tmp_path / "plan.json")


def edited(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return path


def test_another_model_is_refused_with_both_digests(path):
    with pytest.raises(
        ParedownError,
        match=r"demo:sentiment with digest 0123456789abcdef, the model that was loaded has digest aaaa; load the plan's model",
    ):
        load_plan(path, model_digest="aaaa")


@pytest.mark.parametrize("digest", [None, "0123456789abcdef"])
def test_unknown_layers_are_refused_with_those_that_are_close(path, digest):
    edited(path, schemes={"encoder.0.qury": "int4"})
    with pytest.raises(ParedownError, match=r"got 'encoder\.0\.qury'; did you mean encoder\.0\.query\?"):
        load_plan(path, model_digest=digest, layers=LAYERS)


def test_a_newer_schema_is_refused_whatever_else_it_holds(path):
    edited(path, schema=2, schemes=[["something", "new"]])
    with pytest.raises(ParedownError, match="has schema 2, this version of Paredown reads up to 1; upgrade"):
        load_plan(path)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "expected the JSON of a plan"),
        ("{", "expected the JSON of a plan"),
        ("[1]", "expected the JSON of a plan"),
        ("{}", "expected the JSON of a Plan, but model"),
        ('{"model": "m", "model_digest": "d", "schemes": {"a": "int9"}, "bytes": 1}', "bits must be one of"),
    ],
)
def test_what_is_no_plan_is_refused(path, text, match):
    path.write_text(text)
    with pytest.raises(ParedownError, match=match):
        load_plan(path)


def test_bytes_that_are_no_text_are_refused(path):
    path.write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(ParedownError, match="bytes that are no text"):
        load_plan(path)


def test_no_file_is_refused(tmp_path):
    with pytest.raises(ParedownError, match="can't be read: No such file"):
        load_plan(tmp_path / "none.json")


def test_a_place_that_can_not_be_written_to_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ParedownError, match="could not be written to"):
        save_plan(PLAN, tmp_path / "file" / "plan.json")


def test_a_full_disk_leaves_the_old_plan(path, monkeypatch):
    def full(plan, **_):
        raise OSError(28, "No space left on device")

    before = path.read_text()
    monkeypatch.setattr("paredown.export.plan_json.to_json", full)
    with pytest.raises(ParedownError, match="No space left on device; choose a folder"):
        save_plan(PLAN, path)
    assert path.read_text() == before
    assert list(path.parent.iterdir()) == [path]
