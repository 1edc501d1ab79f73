"""Pictures of the explorer, to be looked at: python tests/browser/shoot.py [NAME ...] writes .screenshots/NAME.png."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from browser import state as states
from browser.answered import Rich, refined_study, rich_study
from browser.compared import Compared, as_pictures, as_sounds, compared_study
from browser.harness import View, launched

OUT = Path(__file__).parents[2] / ".screenshots"
DARK = {"ground": "#111418", "ink": "#eee"}


def failed() -> dict[str, Any]:
    state = states.minilm(
        error={"text": "Filling the rest failed: the three locked layers alone need 12.1 MB", "remedy": "Unlock one, or raise the budget."}
    )
    state["run"] |= {
        "state": "failed",
        "message": "Sensitivity failed at block 3 fc1: out of memory",
        "remedy": "use a batch of 16, then resume",
        "can": ["resume"],
        "share": 0.5,
    }
    state["run"]["stages"] = [s | {"state": "done" if i < 2 else "now" if i == 2 else "todo"} for i, s in enumerate(state["run"]["stages"])]
    state["budget"] |= {"amount": 9.2, "text": "9.20", "verdict": "1.12 MB over", "kind": "over"}
    state["front"] = states.front("kl")
    state["sensitivity"]["rows"].sort(key=lambda row: -row["value"])
    for row in state["sensitivity"]["rows"]:
        row["label"] = {None: {"emb": "Embeddings", "pool": "Pooler"}.get(row["label"], "")}.get(
            row["block"], f"Block {row['block']} {row['label']}"
        )
    state["sensitivity"] |= {"order": "largest"}
    return state


def curved(theme: str = "light", **choice: Any) -> dict[str, Any]:
    state = states.minilm(theme=theme)
    state["spectrum"] = states.spectrum(*choice.pop("layers", ()), **choice)
    return state


def by_trace(theme: str = "light") -> dict[str, Any]:
    """Sensitivity by the Hessian's trace, which is negative in some layers; the plan coloured by it."""
    state = curved(theme, mode="all")
    rows = state["sensitivity"]["rows"]
    for row in rows:
        if row["label"] == "k":
            row |= {"value": -row["value"], "low": -1.6 * row["value"], "high": -0.4 * row["value"], "text": f"−{row['text']}"}
    kinds = [{"id": "kl", "label": "Predicted KL"}, {"id": "trace:hessian", "label": "Trace × ‖ΔW‖², Hessian"}]
    state["sensitivity"] |= {"kind": "trace:hessian", "kinds": kinds, "what": kinds[1]["label"]}
    return state


def rich(theme: str = "light", blocks: int = 6) -> dict[str, Any]:
    """A study of bits, sparsity and rank."""
    with tempfile.TemporaryDirectory() as folder:
        return Rich(rich_study(Path(folder), blocks)).edited().state(theme=theme)


def refined(theme: str = "light", tab: str = "", **choices: str) -> dict[str, Any]:
    """A study whose plans were refined and timed."""
    with tempfile.TemporaryDirectory() as folder:
        shown = Rich(refined_study(Path(folder)))
        for kind, choice in choices.items():
            shown.do(kind, id=choice)
        shown.model.rank()
        return shown.state(theme=theme) | {"tab": tab}


def layered(theme: str = "light", layer: int = 6, beside: int | None = None, **more: Any) -> dict[str, Any]:
    """A layer's page, of a study of bits, sparsity and rank."""
    with tempfile.TemporaryDirectory() as folder:
        shown = Rich(rich_study(Path(folder), **more)).edited()
        shown.do("opened", id="layer")
        shown.do("select", layers=[shown.names[layer]], mode="replace")
        if beside is not None:
            shown.do("select", layers=[shown.names[beside]], mode="toggle")
        return shown.state(theme=theme) | {"tab": "Layer"}


def coloured(theme: str = "light", by: str = "sensitivity", blocks: int = 6) -> dict[str, Any]:
    """The plan coloured by a number."""
    with tempfile.TemporaryDirectory() as folder:
        shown = Rich(rich_study(Path(folder), blocks)).edited()
        shown.do("color_by", id=by)
        return shown.state(theme=theme)


def compared(theme: str = "light", media: str = "", blocks: int = 6, edited: bool = False, tab: str = "Compare") -> dict[str, Any]:
    """Three plans side by side; `edited`: a fourth one, and the plan in the hands is not measured."""
    with tempfile.TemporaryDirectory() as folder:
        shown = Compared(compared_study(Path(folder), blocks=blocks))
        if media:
            return {"picture": as_pictures, "sound": as_sounds}[media](shown, theme)
        if edited:
            shown.do("compare_add", digest=shown.uniform(4))
            shown.do("bits", layers=[shown.names[3]], bits=8)
            shown.model.comparison.work(shown.model)
        return shown.state(theme=theme) | {"tab": tab}


Q, K, V = (states.name(1, role) for role in "qkv")
VIEWS: dict[str, dict[str, Any]] = {
    "ggn": {"matrix": "ggn"}, "one": {"layers": [states.name(4, "fc2")]}, "one_ggn": {"layers": [states.name(4, "fc2")], "matrix": "ggn"}, "three": {"layers": [Q, K, V]},
    "all": {"mode": "all"}, "all_ggn": {"mode": "all", "matrix": "ggn"}, "table": {"mode": "table"}, "partial": {"mode": "all", "matrix": "hessian", "share": 0.4},
    "missing": {"layers": [Q], "matrix": "hessian", "share": 0.2}, "deep": {"mode": "all", "blocks": 35}, "deep_table": {"mode": "table", "blocks": 35, "share": 0.1},
}  # fmt: skip
SHOTS: dict[str, tuple[int, Any, dict[str, str]]] = {
    "light_1280": (1280, states.minilm, {}),
    "dark_1280": (1280, lambda: states.minilm(theme="dark"), DARK),
    "light_900": (900, states.minilm, {}),
    "dark_900": (900, lambda: states.minilm(theme="dark"), DARK),
    "light_620": (620, states.minilm, {}),
    "dark_620": (620, lambda: states.minilm(theme="dark"), DARK),
    "deep_1280": (1280, states.deep, {}),
    "very_deep_1280": (1280, lambda: states.deep(80), {}),
    "idle_1280": (1280, states.idle, {}),
    "failed_1280": (1280, failed, {}),
    "failed_dark_900": (900, lambda: failed() | {"theme": "dark"}, DARK),
    "by_trace_1280": (1280, by_trace, {}),
    "by_trace_dark_900": (900, lambda: by_trace("dark"), DARK),
    **{f"rich_light_{width}": (width, rich, {}) for width in (1280, 900, 620)},
    **{f"rich_dark_{width}": (width, partial(rich, "dark"), DARK) for width in (1280, 900, 620)},
    **{f"refined_light_{width}": (width, refined, {}) for width in (1280, 620)},
    **{f"refined_dark_{width}": (width, partial(refined, "dark", x="seconds"), DARK) for width in (1280, 620)},
    **{f"search_light_{width}": (width, partial(refined, tab="Search"), {}) for width in (1280, 620)},
    **{f"search_dark_{width}": (width, partial(refined, "dark", "Search"), DARK) for width in (1280, 620)},
    **{
        f"layer_{theme}_{width}": (width, partial(layered, theme, 12, 18), DARK if theme == "dark" else {})
        for theme in ("light", "dark")
        for width in (1280, 900, 620)
    },
    "coloured_light_1280": (1280, coloured, {}),
    "coloured_dark_1280": (1280, partial(coloured, "dark", "outliers"), DARK),
    "coloured_light_620": (620, partial(coloured, by="reach"), {}),
    "coloured_deep_1280": (1280, partial(coloured, blocks=32), {}),
    "coloured_deep_dark_1280": (1280, partial(coloured, "dark", "kurtosis", 60), DARK),
    "compare_light_1280": (1280, compared, {}),
    "compare_dark_1280": (1280, partial(compared, "dark", edited=True), DARK),
    "front_compared_light_1280": (1280, partial(compared, edited=True, tab=""), {}),
    "front_compared_dark_620": (620, partial(compared, "dark", edited=True, tab=""), DARK),
    "compare_900": (900, compared, {}),
    "compare_620": (620, compared, {}),
    "compare_dark_620": (620, partial(compared, "dark", edited=True), DARK),
    "compare_pictures_1280": (1280, partial(compared, media="picture"), {}),
    "compare_sounds_dark_1280": (1280, partial(compared, "dark", media="sound"), DARK),
    "compare_deep_1280": (1280, partial(compared, blocks=32), {}),
    "rich_deep_1280": (1280, partial(rich, blocks=32), {}),
    "rich_deep_dark_900": (900, partial(rich, "dark", 32), DARK),
    **{f"spec_{name}_1280": (1280, partial(curved, **choice), {}) for name, choice in VIEWS.items()},
    **{f"spec_{name}_620": (620, partial(curved, **choice), {}) for name, choice in VIEWS.items()},
    **{f"spec_{name}_dark_900": (900, partial(curved, "dark", **choice), DARK) for name, choice in VIEWS.items()},
}


def menu(name: str, place: str = ".pd") -> Callable[[View], None]:
    """A menu open."""

    def act(view: View) -> None:
        view.page.locator(place).get_by_role("button", name=name, exact=True).click()

    return act


def brushed(view: View) -> None:
    """A region of the front dragged."""
    box = view.page.locator("[data-chart=front]").bounding_box()
    assert box is not None
    view.page.mouse.move(box["x"] + 0.4 * box["width"], box["y"] + 60)
    view.page.mouse.down()
    view.page.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 90, steps=4)
    view.page.mouse.up()


def listed(view: View) -> None:
    """The plan as a table, a value of it open."""
    view.page.get_by_role("radiogroup", name="Plan as").get_by_role("radio", name="Table").click()
    view.page.locator(".pd-table .rows > .row").nth(3).locator(".layer").click()


def sheet(view: View) -> None:
    """A chart's data as a table over the explorer."""
    menu("Take the chart away", ".pd-pareto")(view)
    view.page.get_by_role("menuitem", name="Show as table").click()


def adding(view: View) -> None:
    """The menu of plans to compare."""
    view.page.get_by_role("tab", name="Compare").click()
    menu("Add plan")(view)


def pointed(view: View) -> None:
    """What pointing at a cell says."""
    view.page.locator(".pd-cell[data-layer]").nth(14).hover()
    view.page.wait_for_timeout(700)


def standing(theme: str = "light") -> dict[str, Any]:
    """Sizes that go first, and plans that wait; the budget is one of latency, and so is the chart's axis."""
    with tempfile.TemporaryDirectory() as folder:
        shown = Rich(refined_study(Path(folder)))
        shown.do("budget_unit", id="ms")
        shown.do("x", id="seconds")
        shown.do("bits", layers=shown.names[3:9], bits=8)
        return shown.state(theme=theme)


def named(theme: str = "light") -> dict[str, Any]:
    """A plan with a history, two saved plans, and two compared ones."""
    with tempfile.TemporaryDirectory() as folder:
        shown = Compared(compared_study(Path(folder)))
        for bits, name in ((3, "embeddings at 3"), (8, "a rather long name, as somebody would give it who explains")):
            shown.do("bits", layers=[shown.names[0]], bits=bits)
            shown.do("save_plan", name=name)
        shown.do("exports_opened")
        shown.model.comparison.work(shown.model)
        return shown.state(theme=theme)


ACTS: dict[str, tuple[Callable[..., dict[str, Any]], Callable[[View], None]]] = {
    "menu_export": (named, menu("Export")),
    "menu_plans": (named, menu("Plans", ".pd-card")),
    "menu_history": (named, menu("History", ".pd-card")),
    "menu_chart": (named, menu("Take the chart away", ".pd-pareto")),
    "menu_add": (named, adding),
    "chart_table": (named, sheet),
    "brush": (refined, brushed),
    "table": (rich, listed),
    "tip": (rich, pointed),
    "latency": (standing, lambda view: None),
}
"""Name to a state and what is done there before the picture is taken."""
for act in ACTS:
    for theme, page in (("light", {}), ("dark", DARK)):
        for width in (1280, 640):
            SHOTS[f"{act}_{theme}_{width}"] = (width, partial(ACTS[act][0], theme), page)


def overflow(view: View) -> list[str]:
    """What sticks out of its place: wider than the page, or text cut off without an ellipsis."""
    return view.page.evaluate(
        """() => [...document.querySelectorAll('.pd *')].filter((e) => e.checkVisibility() && !e.closest('svg') && !e.matches('.sr')
        && (e.getBoundingClientRect().right > innerWidth + 1)).map((e) => e.className || e.tagName).slice(0, 8)"""
    )


def ready(view: View, state: dict[str, Any]) -> None:
    """The state's own tab, drawn."""
    for chart in ("front", "spectrum"):
        if (state[chart].get("figure") or {}).get("data"):
            view.drawn(chart)
    if state.get("tab"):
        view.page.get_by_role("tab", name=state["tab"]).click()
    view.page.wait_for_timeout(250)


def main(names: list[str]) -> None:
    OUT.mkdir(exist_ok=True)
    with launched() as browser:
        for name in names or SHOTS:
            width, build, page = SHOTS[name]
            view = View(browser, width, 862, scale=1.5)
            state = build()
            view.mount(state, **page)
            ready(view, state)
            act = name.rsplit("_", 2)[0]
            if act in ACTS:
                ACTS[act][1](view)
                view.page.wait_for_timeout(250)
            view.page.screenshot(path=OUT / f"{name}.png", full_page=True)
            height = view.page.evaluate("document.querySelector('.pd').offsetHeight")
            print(f"{name}: {height} px high", overflow(view) or "", view.problems or "")
            view.page.close()


if __name__ == "__main__":
    main(sys.argv[1:])
