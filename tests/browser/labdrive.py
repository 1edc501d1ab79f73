"""A private JupyterLab, or Notebook, for a test, and the way into the very kernel that its notebook runs on."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client.blocking.client import BlockingKernelClient
from playwright.sync_api import BrowserContext, Page, sync_playwright

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
_QUIET = {"@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False, "doNotDisturbMode": True}}
_KERNEL_IDLE = """() => {
    const main = [...window.jupyterapp.shell.widgets('main')].find((w) => w.context && w.context.sessionContext);
    const kernel = main && main.context.isReady && main.context.sessionContext.session?.kernel;
    return Boolean(kernel) && kernel.status === 'idle';
}"""
_CELLS_DONE = """() => {
    const prompts = [...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')].map((e) => e.textContent);
    return prompts.length > 0 && prompts.every((text) => /\\[\\d+\\]/.test(text));
}"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Lab:
    """A JupyterLab server with settings, data and history of its own; or with ``app="notebook"`` one of Notebook 7."""

    def __init__(self, root: Path, app: str = "jupyterlab") -> None:
        self.app = app
        self.root = root
        self.home = Path(tempfile.mkdtemp(prefix="lab"))
        self.port, self.token = free_port(), secrets.token_hex(16)
        for plugin, value in _QUIET.items():
            package, name = plugin.split(":")
            place = self.home / "settings" / package
            place.mkdir(parents=True)
            (place / f"{name}.jupyterlab-settings").write_text(json.dumps(value))
        places = {"JUPYTER_CONFIG_DIR": "config", "JUPYTER_DATA_DIR": "data", "JUPYTER_RUNTIME_DIR": "runtime", "IPYTHONDIR": "ipython"}
        places |= {"JUPYTERLAB_SETTINGS_DIR": "settings", "JUPYTERLAB_WORKSPACES_DIR": "workspaces", "HOME": "."}
        environment = {
            **os.environ,
            **{key: str(self.home / value) for key, value in places.items()},
            "JUPYTER_PLATFORM_DIRS": "1",
            "OMP_NUM_THREADS": "1",
        }
        options = [
            "--no-browser",
            "--allow-root",
            "--ServerApp.ip=127.0.0.1",
            f"--ServerApp.port={self.port}",
            "--ServerApp.port_retries=0",
            f"--IdentityProvider.token={self.token}",
            f"--ServerApp.root_dir={root}",
            f"--{'LabApp' if app == 'jupyterlab' else 'JupyterNotebookApp'}.expose_app_in_browser=True",
            "--LabApp.extension_manager=readonly",
            "--LabApp.news_url=",
        ]
        self._log = (self.home / "server.log").open("w")
        self._process = subprocess.Popen([sys.executable, "-m", app, *options], env=environment, stdout=self._log, stderr=subprocess.STDOUT)
        self._await_server()

    def _await_server(self) -> None:
        deadline = time.monotonic() + 90
        while True:
            try:
                self.api("/api/status")
                return
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError((self.home / "server.log").read_text()[-3000:]) from None
                time.sleep(0.1)

    def api(self, path: str) -> Any:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", headers={"Authorization": f"token {self.token}"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read())

    def url(self, notebook: str) -> str:
        place = "lab/tree" if self.app == "jupyterlab" else "notebooks"
        return f"http://127.0.0.1:{self.port}/{place}/{notebook}?token={self.token}&reset"

    @contextlib.contextmanager
    def kernel(self, notebook: str) -> Iterator[BlockingKernelClient]:
        """A second client of the notebook's kernel."""
        session = next(s for s in self.api("/api/sessions") if s["path"] == notebook)
        client = BlockingKernelClient(connection_file=str(self.home / "runtime" / f"kernel-{session['kernel']['id']}.json"))
        client.load_connection_file()
        client.start_channels()
        try:
            yield client
        finally:
            client.stop_channels()

    def close(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()
        shutil.rmtree(self.home, ignore_errors=True)


def peek(client: BlockingKernelClient, expression: str, timeout: float = 30.0) -> Any:
    """Evaluate an expression whose value is JSON in the running kernel, without a cell."""
    message = client.execute("", silent=True, user_expressions={"value": f"__import__('json').dumps({expression})"})
    deadline = time.monotonic() + timeout
    while True:
        reply = client.get_shell_msg(timeout=max(0.1, deadline - time.monotonic()))
        if reply["parent_header"].get("msg_id") == message:
            break
    value = reply["content"]["user_expressions"]["value"]
    if value["status"] != "ok":
        raise RuntimeError(f"{expression}: {value}")
    return json.loads(eval(value["data"]["text/plain"]))


def write_notebook(path: Path, cells: list[str]) -> None:
    notebook = nbformat.v4.new_notebook(metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}})
    notebook.cells = [nbformat.v4.new_code_cell(cell) for cell in cells]
    nbformat.write(notebook, path)


@contextlib.contextmanager
def browser(chromium: str, *, size: tuple[int, int] = (1500, 1100)) -> Iterator[BrowserContext]:
    profile = tempfile.mkdtemp(prefix="chromium")
    with sync_playwright() as play:
        context = play.chromium.launch_persistent_context(
            profile, executable_path=chromium, headless=True, args=FLAGS, viewport={"width": size[0], "height": size[1]}
        )
        try:
            yield context
        finally:
            context.close()
            shutil.rmtree(profile, ignore_errors=True)


class Watch:
    """What a page says and asks for: errors, and requests to anywhere but this machine."""

    def __init__(self, page: Page) -> None:
        self.outside: list[str] = []
        self.errors: list[str] = []
        page.on("request", lambda r: self.outside.append(r.url) if r.url.startswith("http") and "127.0.0.1" not in r.url else None)
        page.on("pageerror", lambda e: self.errors.append(str(e)))
        page.on("console", lambda m: self.errors.append(m.text) if m.type == "error" else None)


def open_notebook(page: Page, lab: Lab, notebook: str) -> None:
    page.goto(lab.url(notebook))
    page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=90_000)
    page.wait_for_function("() => window.jupyterapp !== undefined", timeout=60_000)
    page.wait_for_function(_KERNEL_IDLE, timeout=60_000)


def command(page: Page, name: str) -> None:
    page.evaluate("(name) => { window.jupyterapp.commands.execute(name); }", name)  # braces: the promise is not waited for


def wait_cells(page: Page) -> None:
    page.wait_for_function(_CELLS_DONE, timeout=90_000)


def points(page: Page, uid: str, chart: str = "front") -> int:
    """How many points a trace of a chart shows; 0 while it is not drawn. Pierces Panel's shadow roots."""
    return page.locator(f"[data-chart={chart}] .js-plotly-plot").evaluate(
        "(plot, uid) => plot.data?.find((t) => t.uid === uid || t.uid === 'u' + uid)?.x?.length ?? 0", uid, timeout=60_000
    )


def click_point(page: Page, uid: str, index: int, chart: str = "front") -> str:
    """Click a point with the real mouse; returns its customdata."""
    plot = page.locator(f"[data-chart={chart}] .js-plotly-plot")
    plot.scroll_into_view_if_needed()
    x, y, digest = plot.evaluate(
        """(plot, [uid, index]) => {
            const k = plot.data.findIndex((t) => t.uid === uid || t.uid === 'u' + uid), trace = plot.data[k], point = plot.calcdata[k][index];
            const box = plot.getBoundingClientRect(), {xaxis, yaxis} = plot._fullLayout;
            return [box.left + xaxis._offset + xaxis.c2p(point.x), box.top + yaxis._offset + yaxis.c2p(point.y), trace.customdata[index]];
        }""",
        [uid, index],
    )
    page.mouse.click(x, y)
    return digest


def eventually(check: Any, timeout: float = 15.0) -> None:
    """Wait until `check()` is true."""
    deadline = time.monotonic() + timeout
    while not check():
        if time.monotonic() > deadline:
            raise AssertionError(f"not true within {timeout} s")
        time.sleep(0.05)
