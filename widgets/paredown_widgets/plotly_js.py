"""plotly.js as it comes with Paredown: its cartesian bundle, a third of the whole, which holds every kind of trace that the explorer draws."""

from functools import cache
from pathlib import Path

VERSION = "4.1.1"
"""That of the plotly.js inside the pinned plotly package: a chart looks the same in the explorer and as a figure in Python."""
SHA256 = "79542150855a52c567260e3137095dbe2b744e6d702a5cabe67da246942fba7a"
"""Of the script as npm has it; `make plotly` fetches it again."""


@cache
def packed() -> bytes:
    """The script, compressed by gzip: 0.5 MB, 1.5 MB unpacked."""
    return (Path(__file__).parent / "vendored" / "plotly-cartesian.min.js.gz").read_bytes()
