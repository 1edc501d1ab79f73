"""The explorer's JavaScript and CSS as the one string each that hosts take: no build step, no package manager, no network."""

import re
from functools import cache
from pathlib import Path

__all__ = ["css", "esm"]

_HERE = Path(__file__).parent
_IMPORT = re.compile(r'^import \{[^}]*\} from "\./(?P<stem>[\w-]+)\.js";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async )?(?:function|const|let|class)\b)", re.MULTILINE)
_STYLES = (
    "tokens",
    "controls",
    "lines",
    "menu",
    "budget",
    "layout",
    "plan",
    "plantable",
    "handles",
    "summary",
    "sensitivity",
    "chart",
    "spectrum",
    "layer",
    "search",
    "compare",
    "narrow",
)
"""In cascade order: later sheets may refine earlier ones."""


def modules(stem: str) -> tuple[str, ...]:
    """The module `stem` and all modules that it imports, each after those that it needs itself.

    Raises:
        ValueError: two modules import each other, so that neither can come first.
    """
    order: list[str] = []
    path: list[str] = []

    def visit(name: str) -> None:
        if name in order:
            return
        if name in path:
            raise ValueError(f"expected imports without circles, got {' -> '.join([*path, name])}: move what both need to a third module")
        path.append(name)
        for needed in _IMPORT.finditer(_source(name)):
            visit(needed["stem"])
        path.pop()
        order.append(name)

    visit(stem)
    return tuple(order)


@cache
def esm(stem: str) -> str:
    """One ES module: `stem` and everything that it imports from beside it, joined in order.

    The sources are ordinary modules with relative named imports. Hosts take a single string, so those imports and the exports
    that they name are dropped and the rest is joined; top-level names are therefore unique across the files (a test holds it).
    """
    parts = [_IMPORT.sub("", _source(name)) for name in modules(stem)]
    last = len(parts) - 1
    return "\n".join(
        f"// {name}.js\n{part if i == last else _EXPORT.sub('', part)}"
        for i, (name, part) in enumerate(zip(modules(stem), parts, strict=True))
    )


@cache
def css() -> str:
    """The style sheet of the whole explorer. Every rule hangs under `.pd-host` or `.pd`, so nothing leaks into the page."""
    return "\n".join((_HERE / f"{name}.css").read_text(encoding="utf-8") for name in _STYLES)


def _source(stem: str) -> str:
    return (_HERE / f"{stem}.js").read_text(encoding="utf-8")
