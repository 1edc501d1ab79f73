"""Commands that take a while: the hand that clicked does not wait for them, and their errors are shown."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from paredown_widgets.model import ExplorerModel


def in_background(model: ExplorerModel, command: Callable[[], Any]) -> None:
    """Run a command in a thread; starting a study may import torch and load a model."""

    def work() -> None:
        try:
            command()
        except Exception as error:
            model.fail(error)
        model.changed()

    threading.Thread(target=work, name="explorer-command", daemon=True).start()
