"""The extension of the Jupyter server that lets a kernel's answers through at once."""

import re
import subprocess
import sys
from types import SimpleNamespace

import pytest

from gradflow.widgets import server

KEY = "kernel_websocket_connection_class"


class Plain:
    """A connection as the server makes it; keeps what is asked of its socket."""

    def __init__(self):
        self.told = []
        self.websocket_handler = SimpleNamespace(set_nodelay=self.told.append)

    def connect(self):
        self.told.append("connected")
        return "as before"


def test_a_connection_sends_at_once_before_anything_else_happens():
    app = SimpleNamespace(web_app=SimpleNamespace(settings={KEY: Plain, "other": 1}))
    server._load_jupyter_server_extension(app)
    settings = app.web_app.settings
    assert settings.keys() == {KEY, "other"}
    connection = settings[KEY]()
    assert isinstance(connection, Plain)
    assert connection.connect() == "as before"
    assert connection.told == [True, "connected"]


def test_an_installation_turns_the_extension_on_and_a_server_can_load_it(tmp_path):
    pytest.importorskip("jupyter_server")
    listed = subprocess.run(
        [sys.executable, "-m", "jupyter", "server", "extension", "list"],
        capture_output=True, text=True, check=True, cwd=tmp_path,
    )  # fmt: skip
    told = re.sub(r"\x1b\[[0-9;]*m", "", listed.stdout + listed.stderr)
    assert re.search(r"^\s*gradflow\.widgets\.server enabled$", told, re.MULTILINE)
    assert re.search(r"^\s*gradflow\.widgets\.server\s+OK$", told, re.MULTILINE)
