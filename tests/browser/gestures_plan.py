"""Gestures on the plan: selecting, editing, whole plans. Each waits for its effect on Python's state and on the screen."""

from __future__ import annotations

from browser.person import BITS, PHRASES, Person

# ---- selection ----------------------------------------------------------------------------------------------------------------


def click_cell(one: Person) -> None:
    one.grid()
    layers = one.python()["layers"]
    layer = one.draw.choice(list(layers))
    one.now()
    one.cell(layer).click()
    one.until(lambda python, _: sorted(python["selection"]) == sorted(layers[layer]["group"]))


def toggle_cell(one: Person) -> None:
    one.grid()
    python = one.python()
    layer = one.draw.choice(list(python["layers"]))
    group, before = set(python["layers"][layer]["group"]), set(python["selection"])
    one.now()
    one.cell(layer).click(modifiers=["Control"])
    one.until(lambda python, _: set(python["selection"]) == (before - group if group <= before else before | group))


def click_label(one: Person) -> None:
    one.grid()
    label = one.draw.choice([*(f"Select Block {block}" for block in range(6)), *(f"Select {role}" for role in ("q", "o", "fc1", "fc2"))])
    one.now()
    one.pd.get_by_label(label, exact=True).click()
    one.until(lambda python, _: len(python["selection"]) == (18 if label == "Select q" else 6))


def walk(one: Person) -> None:
    """An arrow on a cell."""
    one.grid()
    layers = one.python()["layers"]
    block = one.draw.randrange(5)
    here, there = (f"bert.encoder.layer.{row}.output.dense" for row in (block, block + 1))
    one.cell(here).click()
    one.until(lambda python, _: python["selection"] == [here])
    one.now()
    one.page.keyboard.press("ArrowDown")
    one.until(lambda python, _: python["selection"] == layers[there]["group"])


def phrase(one: Person) -> None:
    """Type a filter, select what it keeps, clear it."""
    one.grid()
    field, text = one.pd.get_by_label("Filter layers"), one.draw.choice(PHRASES)
    one.now()
    field.fill(text)
    python, _ = one.until(
        lambda python, screen: (
            (python["filter"] == text and python["found"] == sum(not layer["dim"] for layer in screen["layers"].values()))
            or (python["filter"] == text and python["found"] == 0)
        )
    )
    if python["found"]:
        field.press("Enter")
        one.until(lambda now, _: len(now["selection"]) >= python["found"])
    field.press("Escape")
    one.until(lambda python, screen: python["filter"] == "" and not any(layer["dim"] for layer in screen["layers"].values()))


def hover(one: Person) -> None:
    """A layer lights up in the grid, and in the sensitivities where there are any."""
    one.grid()
    layer = one.draw.choice(list(one.python()["layers"]))
    one.now()
    one.cell(layer).hover()
    one.until(lambda _, screen: screen["lit"] and set(screen["lit"]) == {layer})


# ---- edits --------------------------------------------------------------------------------------------------------------------


def digit(one: Person) -> None:
    layer = one.picked()
    if layer is None:
        return
    bits = one.draw.choice(BITS)
    one.now()
    one.page.keyboard.press(str(bits))
    one.until(lambda python, _: python["layers"][layer]["scheme"] == f"int{bits}g64")


def drag(one: Person) -> None:
    """A cell by one step of bits, up where it can."""
    layer = one.picked()
    if layer is None:
        return
    at = BITS.index(one.python()["layers"][layer]["bits"])
    by = 1 if at < len(BITS) - 1 else -1
    box = one.cell(layer).bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    one.now()
    one.page.mouse.move(x, y)
    one.page.mouse.down()
    one.page.mouse.move(x, y - 15 * by, steps=4)
    one.page.mouse.up()
    one.until(lambda python, _: python["layers"][layer]["bits"] == BITS[at + by])


def stepper(one: Person) -> None:
    layer = one.picked()
    if layer is None:
        return
    at = BITS.index(one.python()["layers"][layer]["bits"])
    by = -1 if at else 1
    one.now()
    one.pd.locator(".pd-tools").get_by_label("More bits" if by > 0 else "Fewer bits").click()
    one.until(lambda python, _: python["layers"][layer]["bits"] == BITS[at + by])


def scheme(one: Person) -> None:
    layer = one.picked()
    if layer is None:
        return
    wanted = one.draw.choice(["nf4g64", "int4g64-gptq", "int4g64+eora16", "int8g64+2:4-wanda"])
    one.now()
    one.pd.get_by_label("Scheme of the selection").select_option(wanted)
    one.until(lambda python, _: python["layers"][layer]["scheme"] == wanted)


def cycle(one: Person) -> None:
    """The key S or R on a layer of 4 bits: there is a next sparsity and a next rank."""
    layer = one.picked()
    if layer is None:
        return
    one.page.keyboard.press("4")
    before, _ = one.until(lambda python, _: python["layers"][layer]["scheme"] == "int4g64")
    one.now()
    one.page.keyboard.press(one.draw.choice("sr"))
    one.until(lambda python, _: python["layers"][layer]["scheme"] != "int4g64" and python["place"] >= min(200, before["place"] + 1))


def lock(one: Person) -> None:
    """Lock a layer; where many are, unlock all."""
    one.grid()
    python = one.python()
    held = [name for name, layer in python["layers"].items() if layer["locked"]]
    layer = one.draw.choice(list(python["layers"]))
    one.cell(layer).click()
    group = python["layers"][layer]["group"]
    one.until(lambda python, _: sorted(python["selection"]) == sorted(group))
    if len(held) > 8:
        one.page.keyboard.press("Control+a")
        one.until(lambda python, _: len(python["selection"]) == len(python["layers"]))
        one.page.keyboard.press("l")  # not all are locked: this locks all, the next one unlocks all
        one.until(lambda python, _: all(layer["locked"] for layer in python["layers"].values()))
        one.now()
        one.page.keyboard.press("l")
        one.until(lambda python, _: not any(layer["locked"] for layer in python["layers"].values()))
        return
    wanted = not python["layers"][layer]["locked"]
    one.now()
    one.page.keyboard.press("l") if one.draw.random() < 0.5 else one.pd.locator(".pd-tools").get_by_label(
        "Lock" if wanted else "Unlock", exact=True
    ).click()
    one.until(lambda python, _: all(python["layers"][name]["locked"] == wanted for name in group))


def undo_redo(one: Person) -> None:
    one.grid()
    before = one.python()
    if not before["place"]:
        return
    by_key = one.draw.random() < 0.5
    one.pd.get_by_role("button", name="Undo", exact=True).focus()
    one.now()
    one.page.keyboard.press("Control+z") if by_key else one.pd.get_by_role("button", name="Undo", exact=True).click()
    one.until(lambda python, _: python["place"] == before["place"] - 1 and python["undone"] == before["undone"] + 1)
    one.page.keyboard.press("Control+Shift+z") if by_key and before["place"] > 1 else one.pd.get_by_role("button", name="Redo").click()
    one.until(lambda python, _: (python["place"], python["digest"]) == (before["place"], before["digest"]))


def table(one: Person) -> None:
    """A digit in the table in place of the grid."""
    one.tab("overview")
    one.pd.get_by_role("radio", name="Table").first.click()
    one.until(lambda _, screen: screen["shape"] == "table")
    row = one.pd.get_by_role("grid", name="Plan, a row a layer").locator(".rows > .row").nth(one.draw.randrange(6))
    layer = row.get_attribute("data-layer")
    assert layer is not None
    row.locator(".layer").click()
    before, _ = one.until(lambda python, _: layer in python["selection"])
    if not before["layers"][layer]["locked"]:
        bits = one.draw.choice(BITS)
        one.now()
        one.page.keyboard.press(str(bits))
        one.until(lambda python, _: python["layers"][layer]["bits"] == bits or "can't" in python["status"])
    one.grid()


# ---- whole plans --------------------------------------------------------------------------------------------------------------


def preset(one: Person) -> None:
    one.tab("overview")
    wanted = one.draw.choice(["uniform int3g64", "uniform int4g64", "uniform int8g64", "best", "kept"])
    one.pd.locator(".pd-card").get_by_role("button", name="Plans").click()
    item = one.pd.locator(f'.pd-card [data-plan="{wanted}"]')
    if item.get_attribute("aria-disabled") == "true":
        one.page.keyboard.press("Escape")
        one.until(lambda _, screen: screen["menus"] == 0)
        return
    one.now()
    item.click()
    kind, _, text = wanted.partition(" ")
    one.until(
        lambda python, screen: (
            (screen["menus"] == 0 and (kind != "uniform" or all(layer["scheme"] == text for layer in python["layers"].values())))
            and (kind != "kept" or all(layer["bits"] is None for layer in python["layers"].values()))
            and (kind != "best" or python["measured"])
        )
    )


def save_forget(one: Person) -> None:
    one.tab("overview")
    name, saved = one.draw.choice(["one", "two", "<b>three</b>"]), one.python()["saved"]
    one.pd.locator(".pd-card").get_by_role("button", name="Plans").click()
    one.now()
    if name in saved:
        one.pd.get_by_role("menuitem", name=f"Remove {name}").click()
        one.until(lambda python, screen: name not in python["saved"] and screen["saved"] == python["saved"])
        one.page.keyboard.press("Escape")
        one.page.mouse.click(3, 3)
    else:
        one.pd.get_by_label("Name to save this plan by").fill(name)
        one.page.keyboard.press("Enter")
    one.until(lambda python, screen: (name in python["saved"]) != (name in saved) and screen["menus"] == 0)


def history(one: Person) -> None:
    one.tab("overview")
    if one.python()["place"] < 2:
        return
    one.pd.locator(".pd-card").get_by_role("button", name="History").click()
    items = one.pd.locator(".pd-card [data-place]")
    item = items.nth(one.draw.randrange(min(6, items.count())))
    place = int(item.get_attribute("data-place") or 0)
    one.now()
    item.click()
    one.until(lambda python, screen: python["place"] == place and screen["menus"] == 0)


def fill(one: Person) -> None:
    """All to 8 bits, then the best within the budget by predicted KL; or the reason why there is none."""
    one.grid()
    one.cell(one.draw.choice(list(one.python()["layers"]))).click()
    one.page.keyboard.press("Control+a")
    one.until(lambda python, _: len(python["selection"]) == len(python["layers"]))
    one.page.keyboard.press("8")
    one.until(
        lambda python, _: all(layer["locked"] or layer["bits"] == 8 for layer in python["layers"].values()) or "can't" in python["status"]
    )
    if one.python()["sensitivity"] != "kl":
        one.pd.locator(".pd-sens select").first.select_option("kl")
        one.until(lambda python, screen: python["sensitivity"] == "kl" == screen["sensitivity"])
        one.cell(one.draw.choice(list(one.python()["layers"]))).click()
    before = one.python()["digest"]
    one.now()
    one.page.keyboard.press("f")
    python, _ = one.until(lambda python, _: python["digest"] != before or bool(python["error"]))
    if python["error"]:
        one.pd.get_by_role("button", name="Dismiss").click()
        one.until(lambda python, _: not python["error"])


def measure(one: Person) -> None:
    """Measure a plan; while the run is paused or over too."""
    digit(one)
    if one.python()["measured"] or one.screen()["tab"] != "overview":
        return
    one.now()
    one.page.keyboard.press("m")
    one.until(lambda python, screen: python["measured"] and screen["measured"])
