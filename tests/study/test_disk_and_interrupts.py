"""A full disk, a folder that can't be written, an interrupt: what is said, and that the same command ends as if nothing had happened."""

import os
import shutil
import signal
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from paredown import models
from paredown.errors import ParedownError
from paredown.study import Study
from study_checks import assert_fails_and_says, assert_is_interrupted, figures


def test_a_full_disk_in_the_middle_of_a_run(finished, study_of, tmp_path):
    study = study_of(tmp_path / "study")

    def fill(event):
        if event.kind == "candidates" and event.done == 4:
            db = study.store._connect()
            db.execute(f"PRAGMA max_page_count={db.execute('PRAGMA page_count').fetchone()[0]}")

    with pytest.raises(ParedownError, match="database or disk is full; free some disk space and run the same command again: it goes on"):
        study.run(fill)
    assert len(study.record().candidates) >= 4
    study.store.close()
    again = study_of(tmp_path / "study")
    assert not again.store.busy
    again.run()
    assert figures(again) == figures(finished)


def test_a_full_disk_while_keeping_what_the_original_answered(finished, study_of, tmp_path, monkeypatch):
    def full(arrays, path):
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("paredown.store.save_file", full)
        assert_fails_and_says(study_of(tmp_path / "study"), "No space left on device; free some disk space or make the folder writable")
    assert list((tmp_path / "study" / "artifacts").iterdir()) == []
    again = study_of(tmp_path / "study")
    again.run()
    assert figures(again) == figures(finished)


@contextmanager
def read_only(folder):
    """A folder that this process may read alone, also where the tests run as root."""
    outer = folder.parent
    modes = {path: path.stat().st_mode for path in (outer, folder, *folder.rglob("*"))}
    user = os.geteuid()
    for path in modes:
        path.chmod(0o555 if path.is_dir() else 0o444)
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)
        for path, mode in modes.items():
            path.chmod(mode)


@pytest.fixture
def open_folder():
    """A folder below which every user may look."""
    folder = Path(tempfile.mkdtemp(prefix="paredown-test-"))
    yield folder
    shutil.rmtree(folder)


def test_a_read_only_study_can_be_looked_at_and_refuses_to_run(finished, study_of, open_folder):
    expected = figures(finished)
    finished.store.close()  # so that everything is in the one file
    folder = Path(shutil.copytree(finished.folder, open_folder / "study"))
    unreadable = open_folder / "unreadable"
    unreadable.mkdir(mode=0)
    with read_only(folder):
        study = study_of(folder)
        assert figures(study) == expected
        assert not study.busy_elsewhere
        with pytest.raises(ParedownError, match=r"study folder .* can't be written: .*make it writable or choose another"):
            study.run()
        with pytest.raises(ParedownError, match=r"study folder .* can't be made: .*choose another"):
            study_of(open_folder / "other")
        with pytest.raises(ParedownError, match="can't be read: Permission denied; make the folder readable"):
            study_of(unreadable / "study")
        study.store.close()
    unreadable.chmod(0o700)
    assert sorted(path.name for path in open_folder.iterdir()) == ["study", "unreadable"]
    again = study_of(folder)
    assert again.run().state == "done"
    assert figures(again) == figures(finished)


# -- interrupts


def test_an_interrupted_download_is_gone_on_with(finished, study_of, config, austen, tmp_path, monkeypatch):
    def interrupted(name):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(models, "load", interrupted)
        assert_is_interrupted(Study(tmp_path / "study", config, task=austen))
    again = study_of(tmp_path / "study")
    again.run()
    assert figures(again) == figures(finished)


def test_an_interrupt_in_the_middle_of_an_evaluation_puts_the_weights_back(finished, study_of, llama, austen, tmp_path, monkeypatch):
    study = study_of(tmp_path / "study")
    before = models.digest(models.distinct_tensors(llama.model))
    real, inside = austen.scores, []

    def scores(model, batches, predictions=None):
        now = models.digest(models.distinct_tensors(model))
        inside.append(now)
        if len([digest for digest in inside if digest != before]) == 2:
            raise KeyboardInterrupt
        return real(model, batches, predictions)

    with monkeypatch.context() as patch:
        patch.setattr(austen, "scores", scores)
        record = assert_is_interrupted(study)
    assert inside[-1] != before  # a plan's weights were in place
    assert models.digest(models.distinct_tensors(llama.model)) == before
    assert len(record.measurements) == 2
    study.run()
    assert figures(study) == figures(finished)


def test_an_interrupt_while_waiting_ends_the_background_in_good_order(finished, study_of, tmp_path):
    study = study_of(tmp_path / "study")
    begun = threading.Event()

    def slow(event):
        if event.kind == "candidates":
            begun.set()
            time.sleep(0.1)

    study.start(slow)
    assert begun.wait(60)
    timer = threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        study.wait(60)
    timer.join()
    assert not study.running
    assert study.record().state == "cancelled"
    assert 0 < len(study.record().candidates) < len(study.record().layers)
    study.run()
    assert figures(study) == figures(finished)


def test_an_interrupted_export_leaves_the_earlier_one(finished, tmp_path, monkeypatch):
    folder = finished.export(finished.choose(bits=4), tmp_path / "out")
    before = {file.name: file.read_bytes() for file in folder.iterdir()}

    def interrupted(path, tensors):
        path.write_bytes(b"half of the fi")
        raise KeyboardInterrupt

    monkeypatch.setattr("paredown.export.checkpoint.write_weights", interrupted)
    with pytest.raises(KeyboardInterrupt):
        finished.export(finished.choose(bits=8), folder)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    assert list(tmp_path.iterdir()) == [folder]
