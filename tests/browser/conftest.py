"""Fixtures of the browser tests; every test in this folder is marked ``browser``.

``chromium`` is a headless browser, ``tab`` opens pages in it and holds the test to a silent console, ``lab``
opens notebooks in a real JupyterLab (``lab.open(cells)``), and ``notebook7`` in Notebook 7.

Where something is missing the tests say so and are skipped; with GRADFLOW_NEEDS_BROWSER=1, as ``.ci/run``
sets it, they fail instead.
"""

import importlib.util
import os
import shutil
from pathlib import Path

import pytest

from tests.browser.lab import Notebook, Notebook7, serving

HERE = Path(__file__).parent
SIZE = {"width": 1200, "height": 1000}


def pytest_collection_modifyitems(items):
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.browser)
            item.add_marker(
                pytest.mark.filterwarnings("default")
            )  # those of the browser's driver are not ours


def require(is_there, what, how):
    """Skip where something is missing, or fail where it must be there."""
    if not is_there:
        told = f"needs {what}: {how}"
        pytest.fail(told) if os.environ.get("GRADFLOW_NEEDS_BROWSER") == "1" else pytest.skip(told)


@pytest.fixture(scope="module")  # no wider: its event loop would be in the way of tests that have their own
def chromium():
    program = shutil.which("chromium") or shutil.which("google-chrome")
    require(program, "Chromium", "apt-get install chromium")
    require(importlib.util.find_spec("playwright"), "Playwright", "pip install -e '.[dev]'")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=program, args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        )
        yield browser
        browser.close()


@pytest.fixture
def tab(chromium):
    """Give a function that opens an empty page; at the end none may have said or asked for anything.

    ``page.said`` collects what the console hears (errors and warnings), uncaught errors and dialogs;
    ``page.asked`` every address asked for that is neither on 127.0.0.1 nor a file;
    ``page.received`` the sizes of what came over web sockets.
    """
    contexts, pages = [], []

    def open_tab(hears=("error", "warning"), ignores=(), **options):
        context = chromium.new_context(**({"viewport": SIZE, "reduced_motion": "reduce"} | options))
        page = context.new_page()
        page.said, page.asked, page.ignores = [], [], ignores
        page.on("console", lambda m: page.said.append(m.text) if m.type in hears else None)
        page.on("pageerror", lambda error: page.said.append(str(error)))
        page.on("dialog", lambda dialog: (page.said.append(dialog.message), dialog.dismiss()))
        page.received = []
        page.on(
            "websocket", lambda socket: socket.on("framereceived", lambda f: page.received.append(len(f)))
        )
        page.on("request", lambda r: None if is_local(r.url) else page.asked.append(r.url))
        contexts.append(context)
        pages.append(page)
        return page

    yield open_tab
    told = [words for page in pages for words in page.said if not any(i in words for i in page.ignores)]
    asked = [address for page in pages for address in page.asked]
    for context in contexts:
        context.close()
    assert (told, asked) == ([], [])


def is_local(address):
    return address.startswith(("http://127.0.0.1", "ws://127.0.0.1", "file:", "data:", "blob:"))


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    require(importlib.util.find_spec("jupyterlab"), "JupyterLab", "pip install -e '.[dev]'")
    with serving(tmp_path_factory.mktemp("jupyter")) as running:
        yield running


class Lab:
    """Opens notebooks in JupyterLab, whose own warnings are not ours."""

    kind = Notebook
    own_complaints = ()

    def __init__(self, server, tab):
        self._server, self._tab = server, tab

    def open(self, cells, **options):
        """Run code cells in a new notebook and a new page; options are those of Playwright's context."""
        page = self._tab(hears=("error",), ignores=self.own_complaints, **options)
        return self.kind(self._server, page).run(cells)

    def open_file(self, path, **options):
        """Run a notebook that exists already, in a copy."""
        shutil.copy(path, self._server.folder / path.name)
        page = self._tab(hears=("error",), ignores=self.own_complaints, **options)
        return self.kind(self._server, page).run_file(path.name)


class Lab7(Lab):
    """Opens notebooks in Notebook 7, which complains a little of itself."""

    kind = Notebook7
    own_complaints = ("reading 'schema'", "Command 'filebrowser:open-path' not registered.")


@pytest.fixture
def lab(server, tab):
    return Lab(server, tab)


@pytest.fixture
def notebook7(server, tab):
    require(importlib.util.find_spec("notebook"), "Notebook 7", "pip install -e '.[dev]'")
    return Lab7(server, tab)
