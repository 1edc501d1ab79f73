"""The table of measured seconds: what is measured, when again, and what becomes of a damaged one."""

from __future__ import annotations

import json
import threading

import numpy as np
import pytest

from paredown.kernels import latency
from paredown.kernels.latency import Call, Timing, seconds_of
from paredown.specs import KEEP, Scheme


def call(scheme="int4g32", use="product", tokens=2, shape=(48, 64)):
    return Call(use, shape, Scheme.parse(scheme), tokens)


@pytest.fixture
def measured(monkeypatch):
    """Which names were measured, in order; the real work is done."""
    names, real = [], latency._measured

    def counted(use, shape, tokens, schemes, rounds):
        names.extend(schemes)
        return real(use, shape, tokens, schemes, rounds)

    monkeypatch.setattr(latency, "_measured", counted)
    return names


EVERY_KIND = [
    "keep",
    "int4g32",
    "int3g16syma8",
    "int8g32a8static",
    "nf3g32",
    "mxfp4",
    "int4g32+2:4",
    "2:4",
    "50%",
    "int4g32+svd4:8",
    "svd8",
    "int4n6",
]


def test_every_kind_of_scheme_takes_a_time_as_a_product_and_as_a_lookup(tmp_path, measured):
    calls = [call(scheme) for scheme in EVERY_KIND] + [call(scheme, "rows") for scheme in ("keep", "int4g32", "nf3g32", "50%", "svd8")]
    found = seconds_of(calls, folder=tmp_path, rounds=1)
    assert set(found) == set(calls)
    assert all(0 < timing.seconds < 1 for timing in found.values())
    assert len(measured) == len(calls)


def test_more_work_takes_longer(tmp_path):
    small, large = call(shape=(64, 64), tokens=1), call(shape=(1024, 1024), tokens=64)  # 16384 times the operations
    found = seconds_of([small, large], folder=tmp_path, rounds=2)
    assert found[small].seconds < found[large].seconds


def test_what_was_measured_is_read_and_only_the_rest_is_measured(tmp_path, measured):
    first = seconds_of([call(), call("keep")], folder=tmp_path, rounds=1)
    again = seconds_of([call(), call("int8g32"), call("keep")], folder=tmp_path, rounds=1)
    assert measured == ["product 48x64 int4g32 M=2", "product 48x64 keep M=2", "product 48x64 int8g32 M=2"]
    assert {key: again[key] for key in first} == first


def test_several_rounds_give_a_deviation_which_is_kept_and_one_gives_none(tmp_path):
    once, often = seconds_of([call()], folder=tmp_path / "once", rounds=1), seconds_of([call()], folder=tmp_path, rounds=4)
    assert once[call()].deviation is None
    assert often[call()].deviation >= 0
    assert seconds_of([call()], folder=tmp_path) == often
    assert seconds_of([call()], folder=tmp_path / "once") == once


def test_the_deviation_is_that_of_the_least_over_many_sets_of_rounds():
    sets = 3.0 + np.random.default_rng(0).exponential(0.5, (4000, 5))  # what others add to 3 seconds
    timings = [Timing.of(each) for each in sets.tolist()]
    least = np.array([timing.seconds for timing in timings])
    claimed = np.array([timing.deviation for timing in timings])
    error = (claimed.std(ddof=1) + 2**0.5 * least.std(ddof=1)) / len(sets) ** 0.5  # an exponential has a kurtosis of 9
    assert abs(claimed.mean() - least.std(ddof=1)) < 4 * error


def test_the_deviation_is_the_jackknifes():
    rounds = [3.4, 3.1, 3.9, 3.3, 3.6]
    left_out = np.array([min(rounds[:k] + rounds[k + 1 :]) for k in range(5)])
    assert Timing.of(rounds).deviation == pytest.approx((4 / 5 * ((left_out - left_out.mean()) ** 2).sum()) ** 0.5)


def test_a_table_of_an_earlier_version_has_seconds_alone(tmp_path, measured):
    seconds_of([call()], folder=tmp_path, rounds=2)
    (table,) = tmp_path.glob("*.json")
    plain = json.loads(table.read_text())
    del plain["deviations"]
    table.write_text(json.dumps(plain))
    assert seconds_of([call()], folder=tmp_path)[call()] == Timing(plain["seconds"][call().key], None)
    assert len(measured) == 1


def test_schemes_that_are_multiplied_alike_share_a_time(tmp_path, measured):
    found = seconds_of([call(text) for text in ("int4g32", "int4g32-gptq", "int4g32-hqq")], folder=tmp_path, rounds=1)
    assert len(set(found.values())) == len(measured) == 1


@pytest.mark.parametrize("change", ["cpu", "isa", "kernels", "torch"])
def test_another_machine_has_a_table_of_its_own(tmp_path, measured, monkeypatch, change):
    seconds_of([call()], folder=tmp_path, rounds=1)
    other = {**latency.machine(), change: "another"}
    monkeypatch.setattr(latency, "machine", lambda: other)
    seconds_of([call()], folder=tmp_path, rounds=1)
    assert len(measured) == 2
    assert len(list(tmp_path.glob("*.json"))) == 2


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[:-20],
        lambda text: "[]",
        lambda text: text.replace("}", "", 1),
        lambda text: json.dumps({**json.loads(text), "seconds": {call().key: -1.0}}),
        lambda text: json.dumps({**json.loads(text), "seconds": {call().key: "fast"}}),
        lambda text: json.dumps({**json.loads(text), "machine": {}}),
        lambda text: json.dumps({**json.loads(text), "deviations": {call().key: -1.0}}),
    ],
)
def test_a_damaged_table_is_measured_anew_and_says_so(tmp_path, measured, damage):
    seconds_of([call()], folder=tmp_path, rounds=1)
    (table,) = tmp_path.glob("*.json")
    table.write_text(damage(table.read_text()))
    said = []
    seconds_of([call()], folder=tmp_path, rounds=1, say=said.append)
    assert len(measured) == 2
    assert "can't be read" in said[0]
    assert "is measured anew" in said[0]
    assert json.loads(table.read_text())["seconds"].keys() == {call().key}


def test_a_folder_that_can_not_be_written_costs_the_table_and_not_the_times(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    said = []
    assert seconds_of([call()], folder=blocked / "latency", rounds=1, say=said.append)[call()].seconds > 0
    assert "can't be written" in said[-1]
    assert "PAREDOWN_CACHE" in said[-1]


def test_an_interruption_keeps_the_shapes_that_were_measured(tmp_path, measured):
    def stop(words):
        if "96x64" in words:
            raise InterruptedError

    calls = [call(), call(shape=(96, 64))]
    with pytest.raises(InterruptedError):
        seconds_of(calls, folder=tmp_path, rounds=1, say=stop)
    seconds_of(calls, folder=tmp_path, rounds=1)
    assert len(measured) == 2


def test_two_who_measure_at_once_both_keep_what_they_found(tmp_path):
    calls = [[call(shape=(16 * rows, 64))] for rows in range(1, 7)]
    threads = [threading.Thread(target=seconds_of, args=(each,), kwargs={"folder": tmp_path, "rounds": 1}) for each in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (table,) = tmp_path.glob("*.json")
    assert json.loads(table.read_text())["seconds"].keys() == {each.key for several in calls for each in several}


def test_a_weight_that_is_kept_is_torchs_own():
    assert Call("rows", (48, 64), KEEP, 1).key == "rows 48x64 keep M=1"
