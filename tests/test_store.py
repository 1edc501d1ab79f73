import dataclasses
import os
import sqlite3
import subprocess
import sys
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paredown.errors import ParedownError
from paredown.specs import KEEP, Candidate, LayerRef, Plan, Scheme
from paredown.store import FILE_NAME, Store
from some_schemes import any_schemes

LAYER = LayerRef("a<b>.query", "linear", "q", "block.0", (8, 16), "float32", ("tied",), ("fused",))
PLAN = Plan("model", "digest", {"a<b>.query": Scheme.parse("int4g64")}, 1000, 0.5, 0.1)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "study", create=True)


def test_events_come_back_as_they_were_written(store):
    written = [
        store.append("run", "load", "layers", payload=[LAYER]),
        store.append("run", "search", "plan", message="é – ‖ΔW‖", done=1, total=2, payload=[PLAN, PLAN]),
    ]
    assert Store(store.folder).events() == written
    assert store.events(after=written[0].sequence) == written[1:]
    assert store.events(kinds=["layers"]) == written[:1]
    assert store.payloads(Plan) == [PLAN, PLAN]


def test_two_readers_see_what_another_thread_writes(store):
    readers = [Store(store.folder), Store(store.folder)]
    thread = threading.Thread(target=lambda: [store.append("run", "search", "plan", payload=[PLAN]) for _ in range(50)])
    thread.start()
    seen = [0, 0]
    while thread.is_alive():
        for index, reader in enumerate(readers):
            now = len(reader.events())
            assert now >= seen[index]
            seen[index] = now
    thread.join()
    assert [len(reader.events()) for reader in readers] == [50, 50]


def test_killed_in_the_middle_of_writing_loses_no_committed_event(store):
    code = (
        "import sys; from paredown.store import Store\n"
        f"store = Store({str(store.folder)!r})\n"
        "for n in range(10**6):\n"
        "    store.append('run', 'measure', 'progress', done=n, total=1)\n"
        "    print(n, flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        for _ in range(40):
            last = int(process.stdout.readline())
        process.kill()
        last = max([last, *(int(line) for line in process.stdout.read().split() if line.isdigit())])
    events = Store(store.folder).events()
    assert len(events) >= last + 1
    assert [event.done for event in events] == list(range(len(events)))


def test_no_study(tmp_path):
    with pytest.raises(ParedownError, match="does not exist; start one with `paredown run --study"):
        Store(tmp_path)


@pytest.mark.parametrize("steps", [0, 1, 2, 3, 4, 5])
def test_killed_while_the_file_is_made(tmp_path, steps):
    """The file is made whole or is made again."""
    code = (
        "import os, sqlite3, sys\n"
        "from paredown.store import Store\n"
        "class Killed(sqlite3.Connection):\n"
        "    left = int(sys.argv[2])\n"
        "    def execute(self, statement, *values):\n"
        "        if statement.startswith(('PRAGMA j', 'PRAGMA a', 'PRAGMA u', 'BEGIN', 'CREATE')):\n"
        "            if Killed.left == 0:\n"
        "                os._exit(9)\n"
        "            Killed.left -= 1\n"
        "        return super().execute(statement, *values)\n"
        "connect = sqlite3.connect\n"
        "sqlite3.connect = lambda *a, **k: connect(*a, factory=Killed, **k)\n"
        "Store(sys.argv[1], create=True)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path), str(steps)], check=False).returncode == 9
    Store(tmp_path, create=True).append("run", "search", "plan", payload=[PLAN])
    assert Store(tmp_path).payloads(Plan) == [PLAN]


def test_newer_schema_is_refused(store):
    with sqlite3.connect(store.path) as db:
        db.execute("PRAGMA user_version=99")
    db.close()
    with pytest.raises(ParedownError, match=r"newer Paredown \(schema 99, this one reads up to 1\); upgrade"):
        Store(store.folder)


def test_foreign_database_is_refused(tmp_path):
    db = sqlite3.connect(tmp_path / FILE_NAME)
    db.execute("CREATE TABLE mine (x)")
    db.commit()
    db.close()
    with pytest.raises(ParedownError, match="not a Paredown study"):
        Store(tmp_path)


@pytest.mark.parametrize(
    "damage", [b"this is no database at all, though it is long enough to look like one", None], ids=["foreign bytes", "truncated"]
)
def test_damaged_file_is_refused(store, damage):
    for _ in range(200):
        store.append("run", "search", "plan", payload=[PLAN])
    store._connect().execute("PRAGMA wal_checkpoint(TRUNCATE)")
    store.close()
    content = store.path.read_bytes()
    store.path.write_bytes(damage or content[: len(content) // 3])
    with pytest.raises(ParedownError, match="is damaged or not an SQLite file"):
        Store(store.folder).events()


def test_not_finite_is_refused_and_nothing_is_written(store):
    with pytest.raises(ParedownError, match="not finite"):
        store.append("run", "search", "plan", payload=[Plan("m", "d", {}, 1, float("nan"))])
    assert store.events() == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_folder(tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(ParedownError, match="can't be made"):
        Store(tmp_path / "locked" / "study", create=True)


def test_a_full_disk_is_explained_and_what_was_written_stays(store):
    store.append("run", "search", "plan", payload=[PLAN])
    store._connect().execute(f"PRAGMA max_page_count={store._connect().execute('PRAGMA page_count').fetchone()[0]}")
    with pytest.raises(ParedownError, match="disk is full; free some disk space and run the same command again"):
        store.append("run", "search", "plan", message="x" * 10**7)
    assert Store(store.folder).payloads(Plan) == [PLAN]


def test_a_read_only_database_is_explained(store):
    store._connect().execute("PRAGMA query_only=1")
    with pytest.raises(ParedownError, match="make the folder writable"):
        store.append("run", "search", "plan")


def test_arrays_are_kept_whole_or_not_at_all(store):
    arrays = {"logits": np.arange(6.0).reshape(2, 3), "flag": np.array(True)}
    assert store.load_arrays("original") is None
    store.save_arrays("original", arrays)
    for name, value in store.load_arrays("original").items():
        np.testing.assert_array_equal(value, arrays[name])
    path = store.folder / "artifacts" / "original.safetensors"
    path.write_bytes(path.read_bytes()[:-4])
    assert store.load_arrays("original") is None
    assert not list(path.parent.glob("*partial*"))


@settings(deadline=None)
@given(st.dictionaries(st.text(min_size=1), st.one_of(st.just(KEEP), any_schemes()), max_size=5), st.integers(0, 10**12), st.floats(0, 1e6))
def test_any_plan_survives_json(names, size, loss):
    from paredown.specs import from_json, to_json

    plan = Plan("model", "digest", names, size, loss)
    back = from_json(Plan, to_json(plan))
    assert back == plan
    assert back.digest == plan.digest


def test_candidates_and_plans_of_stores_without_latency_open():
    from paredown.specs import from_json, to_json

    candidate = Candidate("layer.q", Scheme.parse("int4g64"), Scheme.parse("int4g64"), 1, 0.5, 0.1, 0.2)
    plan = Plan("model", "digest", {"layer.q": KEEP}, 10, 0.5)
    for value in (candidate, plan):
        old = to_json(value).replace(', "seconds_per_token": null', "").replace(', "seconds_per_token_sd": null', "")
        assert "seconds" not in old
        assert from_json(type(value), old) == value
    timed = dataclasses.replace(plan, seconds_per_token=2e-3)
    assert from_json(Plan, to_json(timed)).seconds_per_token == 2e-3
    assert timed.digest == plan.digest


def test_a_candidate_that_is_not_finite_names_the_layer():
    with pytest.raises(ParedownError, match=r"loss_increase of int4g64 on layer.q must be finite, got nan; look for NaN"):
        Candidate("layer.q", Scheme.parse("int4g64"), KEEP, 1, float("nan"), 0.0, 0.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"model": 1}', "expected the JSON of a Plan, but model"),
        ("[", "expected the JSON of a Plan, but the text"),
        ('{"model":"m","model_digest":"d","schemes":{"a":"int9"},"bytes":1}', "schemes.a: Value error, bits must be one of"),
        ('{"model":"m","model_digest":"d","schemes":{},"bytes":1,"schema":99}', "schema 99, this version of Paredown reads up to 1"),
    ],
)
def test_a_bad_plan_file_says_where(text, message):
    from paredown.specs import from_json

    with pytest.raises(ParedownError, match=message):
        from_json(Plan, text)
