"""A real kernel without a browser: the notebook client plays the front end."""

from __future__ import annotations

import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

TESTS = Path(__file__).parents[1]


def test_a_notebook_streams_takes_a_click_and_keeps_a_picture(tmp_path: Path) -> None:
    cells = [
        f"import sys; sys.path.insert(0, {str(TESTS)!r})\nimport paredown.study  # a real study has loaded torch by then\nfrom fake_study import FakeStudy\nfrom paredown_widgets import Explorer\n"
        f"explorer = Explorer(FakeStudy({str(tmp_path / 'study')!r}, blocks=2, pause_each=0.05))\nexplorer",
        "await explorer.run()\nexplorer.state",
        "explorer.plan.digest",
        "0",  # run again and again: the client reads what has come only while it runs a cell
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    client = NotebookClient(notebook, timeout=120, kernel_name="python3", store_widget_state=True)
    with client.setup_kernel():
        for index in (0, 1):
            client.execute_cell(notebook.cells[index], index)
        address, state = next((key, value) for key, value in client.widget_state.items() if "front" in value)
        deadline = time.monotonic() + 10
        while state["run"]["state"] != "done" and time.monotonic() < deadline:
            time.sleep(0.1)
            client.execute_cell(notebook.cells[3], 3, store_history=False)
            state = client.widget_state[address]
        assert state["seq"] >= 5, "the view did not follow the run"
        digest = next(trace for trace in state["front"]["figure"]["data"] if trace["uid"] == "measured")["customdata"][0]
        message = client.kc.session.msg(
            "comm_msg", {"comm_id": address, "data": {"method": "custom", "content": {"type": "load_plan", "digest": digest}}}
        )
        client.kc.shell_channel.send(message)
        time.sleep(0.5)
        client.execute_cell(notebook.cells[2], 2)
    assert notebook.cells[1].outputs[-1]["data"]["text/plain"] == "'done'"
    assert notebook.cells[2].outputs[-1]["data"]["text/plain"] == repr(digest)
    picture = next(output["data"]["image/svg+xml"] for output in notebook.cells[0].outputs if "image/svg+xml" in output.get("data", {}))
    assert "Done" in picture, "the picture was not drawn again when the run was over"
