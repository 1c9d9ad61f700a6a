"""An extension of the Jupyter server: a kernel's answer reaches the page as soon as it is given.

A kernel announces that it is busy, and some milliseconds later it answers. TCP holds such a second small
message back until the first is acknowledged (Nagle's algorithm), and browsers put that off by up to 40 ms:
more than everything else that happens between a drag and the numbers it changes. Installing gradflow turns
the extension on; ``jupyter server extension disable gradflow.widgets.server`` turns it off.
"""

from __future__ import annotations

from typing import Any

__all__: list[str] = []


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": "gradflow.widgets.server"}]


def _load_jupyter_server_extension(app: Any) -> None:  # a ServerApp; jupyter_server need not be there
    """Called by the server as it starts."""
    settings = app.web_app.settings
    settings["kernel_websocket_connection_class"] = _prompt(settings["kernel_websocket_connection_class"])


def _prompt(base: Any) -> Any:
    """Give a connection that sends small messages at once."""

    class Prompt(base):  # type: ignore[misc]  # whatever class the server is set to use
        """A connection between a page and a kernel, without Nagle's algorithm."""

        def connect(self) -> Any:
            """Called once the page has opened its socket."""
            self.websocket_handler.set_nodelay(True)
            return super().connect()

    return Prompt
