"""The study that the explorer is timed on."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path


def sentiment_study(finished: Path | None, folder: Path) -> Path:
    """A finished study of demo:sentiment in the folder: a copy of one, since the explorer writes down the plan in the user's hands, or a new run."""
    study = folder / "study"
    if finished:
        shutil.copytree(finished, study)
    else:
        command = [sys.executable, "-m", "paredown.cli", "run", "demo:sentiment", "--study", str(study), "--json"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return study
