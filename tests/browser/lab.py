"""A real JupyterLab on 127.0.0.1 with folders of its own, and notebooks in it, driven by a headless browser.

    notebook = lab.open(["import gradflow", "gradflow.explore(recording)"])   # runs all cells
    notebook.page                       # Playwright's page: click, type, look
    notebook.value("_.state['step']")   # what the kernel says, once it has nothing left to do

Nothing is asked of the network. The fixtures are in ``conftest.py``.
"""

import contextlib
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat

ROOT = Path(__file__).parent.parent.parent
TIMEOUT_MS = 120_000
EXPECT_MS = 30_000
SETTINGS = {
    "@jupyterlab/apputils-extension/notification.jupyterlab-settings": {
        "fetchNews": "false",
        "checkForUpdates": False,
        "doNotDisturbMode": True,
    },
    "@jupyterlab/notebook-extension/tracker.jupyterlab-settings": {"windowingMode": "none"},  # keep all cells
}
KERNEL = "window.jupyterapp.shell.currentWidget.sessionContext.session.kernel"
HAS_RUN = """() => {
  const shown = window.jupyterapp.shell.currentWidget;
  const cells = [...shown.content.widgets].map((cell) => cell.model).filter((model) => model.type === "code");
  const done = (model) => model.executionCount !== null && model.executionState !== "running";
  return cells.every(done) && shown.sessionContext.session.kernel.status === "idle"; }"""
WORN = ".jp-OutputArea [data-mime-type='application/vnd.jupyter.{}']"


class Server:
    """A running JupyterLab.

    Attributes:
        folder: Where its notebooks lie.
        address: ``http://127.0.0.1:port``.
        token: What it asks for.
    """

    def __init__(self, folder, address, token):
        self.folder, self.address, self.token = folder, address, token


@contextlib.contextmanager
def serving(folder):
    """Start a JupyterLab that keeps everything under ``folder``, and end it afterwards."""
    root, settings = folder / "notebooks", folder / "settings"
    root.mkdir(parents=True)
    for name, value in SETTINGS.items():
        file = settings / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(value))
    token, port = secrets.token_hex(16), _free_port()
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", f"--port={port}",
        "--ServerApp.port_retries=0", f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={root}",
        "--expose-app-in-browser", f"--LabApp.user_settings_dir={settings}",
        f"--LabApp.workspaces_dir={folder / 'workspaces'}", "--LabApp.news_url=None",
        *(["--allow-root"] if os.geteuid() == 0 else []),
    ]  # fmt: skip
    log = folder / "jupyter.log"
    with log.open("w") as out:
        process = subprocess.Popen(
            command, env=_environment(folder), stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            server = Server(root, f"http://127.0.0.1:{port}", token)
            _wait_for(server, process, log)
            yield server
        finally:
            _end(process)


def _free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def _environment(folder):
    own = {"JUPYTER_CONFIG_DIR": "config", "JUPYTER_RUNTIME_DIR": "runtime", "JUPYTER_DATA_DIR": "data",
           "IPYTHONDIR": "ipython", "MPLCONFIGDIR": "matplotlib"}  # fmt: skip
    paths = {name: str(folder / part) for name, part in own.items()}
    fixed = {"JUPYTER_PREFER_ENV_PATH": "1", "PYDEVD_DISABLE_FILE_VALIDATION": "1", "PYTHONPATH": str(ROOT)}
    without = {k: v for k, v in os.environ.items() if k != "MPLBACKEND"}
    return {**without, **paths, **fixed, "OMP_NUM_THREADS": "1"}


def _wait_for(server, process, log):
    for _ in range(480):
        if process.poll() is not None:
            break
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"{server.address}/api/status?token={server.token}", timeout=2).close()
            return
        time.sleep(0.25)
    raise RuntimeError("JupyterLab does not answer:\n" + log.read_text()[-3000:])


def _end(process):
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)  # its own group: the server and its kernels
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(10)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def expect(found):
    """Playwright's assertions of an element: tried again until the page has come so far, or time is up."""
    from playwright.sync_api import expect

    expect.set_options(timeout=EXPECT_MS)
    return expect(found)


class Notebook:
    """A notebook that is open in a page, all its cells run.

    Attributes:
        page: Playwright's page.
    """

    def __init__(self, server, page):
        self.server, self.page = server, page

    def run(self, cells, name="test.ipynb"):
        """Write the cells to a notebook, open it, run it, and wait until nothing is left to do."""
        return self.run_file(write(self.server.folder, cells, name))

    def run_file(self, name):
        """Open a notebook of the server's folder, run all its cells, and wait until nothing is left to do."""
        self.open(name)
        self.page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells'); }")
        self.page.wait_for_function(HAS_RUN, timeout=TIMEOUT_MS)
        for kind in ("error", "stderr"):
            found = self.page.locator(WORN.format(kind))
            assert found.count() == 0, found.first.inner_text()[:2000]
        return self

    def open(self, name):
        """Open a notebook and wait for its kernel."""
        address = f"{self.server.address}/lab/tree/{name}?token={self.server.token}&reset"
        self.page.goto(address, wait_until="domcontentloaded")
        self.page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=TIMEOUT_MS)
        kernel = KERNEL.replace(".session.", "?.session?.").replace("currentWidget.", "currentWidget?.")
        self.page.wait_for_function(f"() => {kernel}?.status === 'idle'", timeout=TIMEOUT_MS)

    def ask(self, code):
        """Run code in the notebook's kernel, after all that was sent before, and give what it prints."""
        said, error = self.page.evaluate(
            f"""async (code) => {{ const run = {KERNEL}.requestExecute({{ code }}); let said = "", error = "";
              run.onIOPub = (message) => {{
                if (message.header.msg_type === "stream") said += message.content.text;
                if (message.header.msg_type === "error") error = message.content.traceback.join("\\n"); }};
              await run.done; return [said.trim(), error]; }}""",
            code,
        )
        assert not error, error
        return said

    def settle(self):
        """Wait until everything that the page's playgrounds asked their kernel for has come back."""
        self.page.wait_for_function("!document.querySelector('.gf-widget[data-waiting]')")

    def start(self, code):
        """Run code in the notebook's kernel without waiting for its end."""
        self.page.evaluate(f"(code) => {{ {KERNEL}.requestExecute({{ code }}); }}", code)

    def set_cell(self, position, code):
        """Write code into a cell."""
        self.page.evaluate(
            """([position, code]) => window.jupyterapp.shell.currentWidget.content.widgets[position]
                 .model.sharedModel.setSource(code)""",
            [position, code],
        )

    def value(self, expression):
        """Give what an expression is in the kernel, by JSON."""
        return json.loads(self.ask(f"import json; print(json.dumps({expression}))"))

    def count(self):
        """Give the number of cells, which no key pressed in a widget may change."""
        return self.page.locator(".jp-Notebook .jp-Cell").count()

    def use_theme(self, name):
        """Turn JupyterLab ``"Light"`` or ``"Dark"``."""
        self.page.evaluate(
            "(theme) => window.jupyterapp.commands.execute('apputils:change-theme', { theme })",
            f"JupyterLab {name}",
        )
        wanted = str(name == "Light").lower()
        self.page.wait_for_selector(f"body[data-jp-theme-light='{wanted}']", state="attached")


class Notebook7(Notebook):
    """The same in Notebook 7, which has no window.jupyterapp: its menu is clicked, its kernel not asked."""

    def run(self, cells, name="test7.ipynb"):
        """Write the cells to a notebook, open it and run it; wait for what it shows yourself."""
        written = write(self.server.folder, cells, name)
        self.page.goto(f"{self.server.address}/notebooks/{written}?token={self.server.token}")
        self.page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=TIMEOUT_MS)
        begun = self.page.locator(".jp-InputPrompt", has_text=re.compile(r"\[[*\d]"))
        for _ in range(20):  # nothing tells when the kernel listens: what is asked before is lost
            self.page.get_by_role("menuitem", name="Run", exact=True).click()
            self.page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
            self.page.wait_for_timeout(2000)
            if begun.count():
                break
        return self


def write(folder, cells, name):
    """Write code cells to a notebook in a folder; gives its name."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, folder / name)
    return name
