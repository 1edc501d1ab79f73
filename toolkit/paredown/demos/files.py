"""Where the demos' data files are: inside the installed package, or in the repository of an editable install."""

from __future__ import annotations

from pathlib import Path

from paredown.errors import ParedownError

_PACKAGE = Path(__file__).resolve().parents[1]
_FOLDERS = (_PACKAGE / "_data", _PACKAGE.parents[1] / "data")


def data_file(*parts: str) -> Path:
    """The path of one of the demos' data files.

    Args:
        parts: Folder and file name, such as ``"sentiment", "sentiment.tsv"``.

    Raises:
        ParedownError: If neither place has the file.
    """
    for folder in _FOLDERS:
        path = folder.joinpath(*parts)
        if path.is_file():
            return path
    looked = " and ".join(str(folder) for folder in _FOLDERS)
    raise ParedownError(
        f"the data file {'/'.join(parts)} is missing: looked in {looked}; install paredown again, or restore the repository's data folder"
    )
