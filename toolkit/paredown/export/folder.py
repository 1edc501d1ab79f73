"""A folder that appears whole or not at all."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from paredown.errors import ParedownError


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """Write into a folder beside, which takes the place of ``folder`` at the end; if anything fails, nothing is left of it.

    Args:
        folder: Where; what is there already is replaced, so that the caller looks first.

    Yields:
        The folder beside, empty.

    Raises:
        ParedownError: If the place can't be written to, or the disk is full.
    """
    beside: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        beside.chmod(0o755)  # temporary folders are made private
        yield beside
        if folder.exists():
            shutil.rmtree(folder)
        beside.rename(folder)
    except OSError as error:
        raise ParedownError(
            f"{folder} could not be written: {error.strerror or error}; nothing was left there; choose a folder that can be written to, with free space"
        ) from error
    finally:
        if beside is not None and beside.exists():
            shutil.rmtree(beside, ignore_errors=True)
