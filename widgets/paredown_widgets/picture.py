"""The explorer as a still picture, for a saved notebook: the plan, its figures and the front, as SVG without a browser."""

from __future__ import annotations

from typing import Any

from paredown_widgets import head, plan, run, summary
from paredown_widgets.figures import front
from paredown_widgets.figures.style import LIGHT
from paredown_widgets.model import ExplorerModel
from paredown_widgets.svg_chart import chart, text

WIDTH, _LEFT, _ROW, _TOP = 1060, 440, 24, 82
_MOST_BLOCKS = 24  # a taller grid would no longer be read


def draw(model: ExplorerModel) -> str:
    """An SVG document of the present state."""
    with model.lock:
        line, cells = head.view(model), plan.view(model)["cells"]
        layout, table = plan.grid(model), summary.view(model)
        state = run.view(model)
        sight = front.view(model)
    blocks = layout["blocks"][:_MOST_BLOCKS]
    grid_height = _ROW * (len(blocks) + 2)
    height = max(_TOP + grid_height + 24 + 20 * (len(table["rows"]) + 2), 480)
    facts = f"Baseline {line['baseline']} · Original {line['original']} · Study {line['study']}, {line['split']}"
    parts = [
        text(f"{line['model']}  {line['task']}", 14, 24, fill=LIGHT["ink"], size=14, weight=600),
        text(facts, 14, 44),
        text(f"{state['label']} {state['detail']}".strip(), WIDTH - 14, 24, anchor="end"),
        *_grid(layout, cells, blocks),
        *_table(table, _TOP + grid_height + 24),
    ]
    if sight["figure"]["data"]:
        keys = "● measured   ◇ uniform   ★ this plan   — predicted front   ± and bars: one standard error"
        parts += [
            text(f"Pareto front, {sight['count']}", _LEFT + 24, _TOP, fill=LIGHT["ink"], weight=600),
            text(keys, _LEFT + 24, _TOP + 18, size=10.5),
        ]
        parts.append(chart(sight["figure"], _LEFT + 24, _TOP + 24, WIDTH - _LEFT - 40, height - _TOP - 34))
    else:
        parts.append(text(sight["empty"], _LEFT + 24, _TOP))
    box = f'<rect x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="8" fill="#ffffff" stroke="{LIGHT["line"]}"/>'
    font = 'font-family="Segoe UI, Roboto, Helvetica Neue, Arial, sans-serif"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" {font}>{box}{"".join(parts)}</svg>'


def _cell(cell: dict[str, Any], x: float, y: float, width: float, label: str = "") -> str:
    step = cell["color"] if cell["color"] is not None else 0
    ink = "#ffffff" if step >= 5 else "#000000"
    lock = text("locked", x + width - 4, y + 9, fill=ink, size=7, anchor="end") if cell["locked"] else ""
    shape = f'<rect x="{x:.1f}" y="{y:.1f}" width="{width - 3:.1f}" height="{_ROW - 3}" rx="3" fill="{LIGHT[f"q{step}"]}"/>'
    return shape + text(f"{label} {cell['text']}".strip(), x + width / 2 - 1, y + 15, fill=ink, size=11, anchor="middle", weight=600) + lock


def _grid(layout: dict[str, Any], cells: dict[str, Any], blocks: list[dict[str, str]]) -> list[str]:
    columns = layout["columns"]
    if not columns:
        return []
    width = (_LEFT - 84) / len(columns)
    place = {column["id"]: 76 + width * i for i, column in enumerate(columns)}
    row = {block["id"]: _TOP + _ROW * i for i, block in enumerate(blocks)}
    parts = [text(column["label"], place[column["id"]] + width / 2, _TOP - 4, size=10.5, anchor="middle") for column in columns]
    parts += [text(block["label"], 14, row[block["id"]] + 15) for block in blocks]
    parts += [_cell(cells[c["layer"]], place[c["column"]], row[c["block"]], width) for c in layout["cells"] if c["block"] in row]
    others = layout["other"][:3]
    for i, other in enumerate(others):
        span = (_LEFT - 84) / len(others)
        parts.append(_cell(cells[other["layer"]], 76 + span * i, _TOP + _ROW * len(blocks) + 4, span, other["label"]))
    return parts


def _table(view: dict[str, Any], top: float) -> list[str]:
    ends = (250, 340, _LEFT - 6)
    parts = [text("This plan", 14, top, fill=LIGHT["ink"], weight=600)]
    parts += [
        text(name.replace(", held-out", ""), end, top, size=10.5, anchor="end") for name, end in zip(view["columns"], ends, strict=True)
    ]
    for i, row in enumerate(view["rows"], 1):
        y = top + 20 * i
        values = (row["original"], row["predicted"], row["measured"])
        parts.append(text(row["label"].split(", nats")[0], 14, y))
        parts += [text(value, end, y, fill=LIGHT["ink"], anchor="end", size=10.5) for value, end in zip(values, ends, strict=True)]
    parts.append(text(view["note"], 14, top + 20 * (len(view["rows"]) + 1), size=10.5))
    return parts
