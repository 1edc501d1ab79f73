from pathlib import Path

import pytest

from paredown import models, tasks
from paredown.specs import StudyConfig
from paredown.study import Study

DATA = Path(__file__).parents[2] / "data"
MODEL = str(DATA / "fixtures" / "tiny-llama-austen")


@pytest.fixture(scope="session")
def llama():
    return models.load(MODEL)


@pytest.fixture(scope="session")
def austen(llama):
    text = (DATA / "text" / "austen_persuasion_calib.txt").read_text(encoding="utf-8")
    return tasks.LanguageModelling(
        llama,
        calibration=text[:4000],
        held_out=text[30000:34000],
        window=32,
        default_samples={"calibration": 6, "held_out": 8},
        name="austen",
        label="Austen",
    )


@pytest.fixture
def config():
    return StudyConfig(model=MODEL, task="austen", schemes=("int2g64sym", "int4g64sym", "int8g64sym"), hessian_seconds=0, seed=3)


@pytest.fixture
def study_of(llama, austen, config):
    """Make or reopen a study in a folder."""
    return lambda folder, **changes: Study(folder, config, model=llama, task=austen, **changes)


@pytest.fixture(scope="session")
def finished(llama, austen, tmp_path_factory):
    """A study that ran to its end; not to be written to."""
    study = Study(
        tmp_path_factory.mktemp("finished"),
        StudyConfig(model=MODEL, task="austen", schemes=("int2g64sym", "int4g64sym", "int8g64sym"), hessian_seconds=0, seed=3),
        model=llama,
        task=austen,
    )
    study.run()
    return study
