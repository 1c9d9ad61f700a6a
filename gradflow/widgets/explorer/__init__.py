"""The explorer of a recording: what the page asks for (``book``), and the widget that shows it (``live``)."""
