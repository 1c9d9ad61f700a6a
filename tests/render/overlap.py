"""Do all texts of a figure fit? Told from the texts that are really drawn and where they come to lie."""

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg

SLACK_PX = 0.5


class _Noting(RendererAgg):
    """A renderer that notes every text that is drawn, and nothing that is not."""

    def __init__(self, *size):
        super().__init__(*size)
        self.noted = []

    def draw_text(self, gc, x, y, s, prop, angle, ismath=False, mtext=None):
        if mtext is not None and s.strip():
            self.noted.append(mtext)
        super().draw_text(gc, x, y, s, prop, angle, ismath, mtext)


def drawn_texts(fig):
    """Every text drawn, with its box in pixels, at the size a reader sees it."""
    root = fig.get_figure(root=True) or fig
    if not hasattr(root.canvas, "get_renderer"):
        FigureCanvasAgg(root)
    pen = _Noting(*map(int, root.bbox.size), root.dpi)
    root.draw(pen)
    return [(text, text.get_window_extent(pen)) for text in dict.fromkeys(pen.noted)]


def assert_no_overlap(fig, *, smallest_pt=5.0):
    """No two texts overlap, none leaves the figure, and none is too small to read."""
    texts = drawn_texts(fig)
    assert texts, "nothing is written in this figure"
    page = (fig.get_figure(root=True) or fig).bbox
    for text, box in texts:
        assert text.get_fontsize() >= smallest_pt, (
            f"{text.get_text()!r} is written in {text.get_fontsize():.1f} pt"
        )
        inside = box.x0 >= page.x0 - SLACK_PX and box.x1 <= page.x1 + SLACK_PX
        inside &= box.y0 >= page.y0 - SLACK_PX and box.y1 <= page.y1 + SLACK_PX
        assert inside, f"{text.get_text()!r} leaves the figure: {box} in {page}"
    boxes = np.array([box.extents for _, box in texts])
    wide = np.minimum(boxes[:, None, 2], boxes[:, 2]) - np.maximum(boxes[:, None, 0], boxes[:, 0])
    high = np.minimum(boxes[:, None, 3], boxes[:, 3]) - np.maximum(boxes[:, None, 1], boxes[:, 1])
    pairs = np.argwhere(np.triu((wide > SLACK_PX) & (high > SLACK_PX), k=1))
    found = [(texts[i][0].get_text(), texts[j][0].get_text()) for i, j in pairs]
    assert not found, f"these texts overlap: {found[:5]}"
