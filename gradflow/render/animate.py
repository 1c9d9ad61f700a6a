"""A graph over the steps of a recording, as GIF or MP4: arrows swell and shrink, boxes stand still."""

from __future__ import annotations

import io
import shutil
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradflow.errors import InvalidArgumentError, need
from gradflow.graph.graph import Graph
from gradflow.render import theme as themes
from gradflow.render.dot import to_dot
from gradflow.render.layout import Look, lay_out
from gradflow.render.paint import Fixed, Paint

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["FORMATS", "MOST_FRAMES", "animate"]

FORMATS = ("gif", "mp4")
MOST_FRAMES = 120

_FRAMES_PER_SECOND = 5
_CAPTION_HEIGHT = 34  # pixels
_AT_ONCE = 2  # layouts, each in a process of its own


def animate(graph: Graph, steps: Sequence[Any], path: Path, look: Look | None = None) -> Path:
    """Write a picture that changes from step to step.

    Args:
        graph: A graph or a view; the whole graph is drawn as its overview.
        steps: Recorded steps, as a :class:`gradflow.recording.Recording`; some of them
            evenly spaced, if there are more than 120.
        path: Where to; ends in ``.gif`` or ``.mp4``.
        look: How.

    Returns:
        The path written.

    Raises:
        InvalidArgumentError: there are no steps.
        MissingPackageError: no Graphviz to draw with, or for MP4 no ffmpeg.
    """
    look = look or Look()
    shown = list(_evenly(steps))
    if not shown:
        raise InvalidArgumentError(
            "no steps to animate",
            where=f"graph.save({path.name!r})",
            do="pass step=recording, with steps in it",
        )
    frames = _frames(graph.overview(), shown, look)
    writer = _write_gif if path.suffix.lower() == ".gif" else _write_mp4
    writer(frames, path)
    return path


def _evenly(steps: Sequence[Any]) -> list[Any]:
    count = len(steps)
    if count <= MOST_FRAMES:
        return [steps[i] for i in range(count)]
    return [steps[round(i * (count - 1) / (MOST_FRAMES - 1))] for i in range(MOST_FRAMES)]


def _frames(view: Graph, steps: list[Any], look: Look) -> list[Image]:
    """Draw every step with boxes of one size and arrows of one scale."""
    views = [view.with_values(step) for step in steps]
    fixed = _fixed(views, look)

    def drawn(one: Graph) -> bytes:
        text = to_dot(one, theme=look.theme, details=look.details, fixed=fixed)
        return lay_out(text, "png", time_limit_s=look.time_limit_s)

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        pictures = list(pool.map(drawn, views))
    return _same_size([_captioned(p, s, look) for p, s in zip(pictures, steps, strict=True)], look)


def _fixed(views: list[Graph], look: Look) -> Fixed:
    largest, lines = 0.0, dict[str, list[str]]()
    for view in views:
        paint = Paint(view, themes.find(look.theme), look.details)
        largest = max(largest, paint.largest)
        for node in view.nodes:
            here = paint.lines(node)
            known = lines.get(node.id, [])
            longer = [max(pair, key=len) for pair in zip(here, known, strict=False)]
            lines[node.id] = longer + max((here, known), key=len)[len(longer) :]
    return Fixed(largest, lines)


def _captioned(picture: bytes, step: Any, look: Look) -> Image:  # a gradflow.recording.Step
    """Write the step, and what was logged with it, below a frame."""
    from PIL import Image, ImageDraw, ImageFont

    colours = themes.find(look.theme)
    drawn = Image.open(io.BytesIO(picture)).convert("RGB")
    frame = Image.new("RGB", (drawn.width, drawn.height + _CAPTION_HEIGHT), colours.paper)
    frame.paste(drawn)
    logged = [f"{name} {themes.number(value)}" for name, value in list(step.scalars.items())[:3]]
    told = "   ".join([f"step {step.index}", *logged])
    font = ImageFont.load_default(18)
    ImageDraw.Draw(frame).text((12, drawn.height + 4), told, fill=colours.ink, font=font)
    return frame


def _same_size(frames: list[Image], look: Look) -> list[Image]:
    """Put frames on one size of paper, with even sides, as video wants them."""
    from PIL import Image

    width, height = (max(sides) for sides in zip(*(frame.size for frame in frames), strict=True))
    size = (width + width % 2, height + height % 2)
    sheets = [Image.new("RGB", size, themes.find(look.theme).paper) for _ in frames]
    for sheet, frame in zip(sheets, frames, strict=True):
        sheet.paste(frame)
    return sheets


def _write_gif(frames: list[Image], path: Path) -> None:
    pause = round(1000 / _FRAMES_PER_SECOND)
    few = [frame.quantize(64) for frame in frames]
    few[0].save(path, save_all=True, append_images=few[1:], duration=pause, loop=0, optimize=True)


def _write_mp4(frames: list[Image], path: Path) -> None:
    size = f"{frames[0].width}x{frames[0].height}"
    program = shutil.which("ffmpeg")
    if program is None:
        program = need("imageio_ffmpeg", extra="video", for_="graph.save('graph.mp4')").get_ffmpeg_exe()
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", size, "-r", str(_FRAMES_PER_SECOND), "-i", "-"]
    target = ["-an", "-vcodec", "libx264", "-pix_fmt", "yuv420p", str(path)]
    command = [program, "-y", "-loglevel", "error", *source, *target]
    subprocess.run(
        command, input=b"".join(frame.tobytes() for frame in frames), check=True, capture_output=True
    )
