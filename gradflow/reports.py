"""One self-contained page about a recording: the explorer, pictures, tables and findings, without a network.

The explorer is the one of notebooks, with the numbers in the page; a content security policy lets no
script run but ours. All other pictures are inline SVG with a title and a description, in light and dark.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from gradflow.findings import Findings
from gradflow.record import ParamStep
from gradflow.recording import Recording, Step
from gradflow.render import html
from gradflow.render.story import ACCOUNTING, of_recording, step_table
from gradflow.render.theme import DARK, LIGHT, css_variables, style
from gradflow.widgets.explorer.standalone import Standalone, standalone

if TYPE_CHECKING:
    from matplotlib.figure import FigureBase

__all__ = ["report"]

_FEW_ROWS = 40  # longer tables are folded
_SMALL = 4096  # entries; the equation prefers a weight no larger


@dataclass(frozen=True, slots=True)
class Section:
    """A heading, one sentence on how to read what follows, and what follows."""

    name: str
    title: str
    lead: str
    body: str


def report(recording: Recording, path: str | Path, *, fqn: str | None = None) -> Path:
    """Write a page about a recording: one file, which opens from disk and loads nothing.

    Args:
        recording: The recording; its last step with gradients is shown in detail.
        path: Where to write.
        fqn: The parameter whose equation is shown; by default a small weight whose tensors were kept.

    Returns:
        The path written.

    Raises:
        NoSuchStepError: the recording is empty.
        NoSuchParameterError: no parameter of that name.
        NotKeptError: the tensors of ``fqn`` were not kept.
    """
    step = _detailed(recording)
    explorer = standalone(recording)
    sections = [_explorer(explorer), *_sections(recording, step, fqn)]
    written = Path(path)
    written.write_text(_page(recording, step, sections, explorer), encoding="utf-8")
    return written


def _detailed(recording: Recording) -> Step:
    """The last step in which any gradient was recorded; the last one if there is none."""
    for i in range(len(recording) - 1, -1, -1):
        if len(recording[i]):
            return recording[i]
    return recording.last


def _sections(recording: Recording, step: Step, fqn: str | None) -> Iterator[Section]:
    if not len(step):
        lead = "No step of this recording has a gradient."
        yield Section("findings", "Findings", lead, _found(step.findings))
        return
    yield _equation(step, fqn)
    yield from _pictures(recording, step)
    yield _findings(recording, step)
    yield _table(step)


def _findings(recording: Recording, step: Step) -> Section:
    """What is wrong or worth seeing over the newest steps, and in the one that the page shows."""
    here = f"step {step.index}"
    if len(recording) == 1:
        return Section(
            "findings", "Findings", f"What is wrong or worth seeing in {here}.", _found(step.findings)
        )
    run = recording.findings()
    span = run.about[:1].lower() + run.about[1:]
    lead = f"What is wrong or worth seeing over {span}, and in {here} by itself."
    over, alone = f"<h3>Over {escape(span)}</h3>{_found(run)}", f"<h3>In {here}</h3>{_found(step.findings)}"
    return Section("findings", "Findings", lead, over + alone)


def _found(findings: Findings) -> str:
    told = html.findings_list(findings) if findings else "<p>Nothing out of the ordinary.</p>"
    return f'<div class="gf">{told}</div>'


def _explorer(explorer: Standalone) -> Section:
    return Section("explorer", "Explore it", explorer.sentence, explorer.element)


def _equation(step: Step, fqn: str | None) -> Section:
    from gradflow.render.equation import equation

    name = fqn or _chosen(step)
    lead = (
        "What each branch brought to one shared weight, their sum, and what the optimizer made of it. "
        "Contributions and sum share one colour scale."
    )
    if name is None:
        how = escape('gradflow.watch(model, optimizer, keep="tensors")')
        body = (
            "<p>The tensors themselves were not kept in this recording, only their inner products, from "
            "which all norms and angles below follow. To see this picture, record with</p>"
            f"<pre><code>{how}</code></pre><p>or keep a few: <code>keep=[&quot;conv1.*&quot;]</code>.</p>"
        )
    else:
        body = _figure(equation(step, name), f"The equation of {name}", "equation")
    return Section("equation", "The equation of one shared weight", lead, body)


def _chosen(step: Step) -> str | None:
    """A weight whose tensors were kept: the first matrix or kernel that is not too large, else any."""
    kept = [p for p in step if p.tensors is not None and p.total_tensor is not None]

    def rank(p: ParamStep) -> tuple[bool, bool]:
        assert p.total_tensor is not None
        return (len(p.shape) < 2, p.total_tensor.size > _SMALL)

    return min(kept, key=rank).fqn if kept else None


def _pictures(recording: Recording, step: Step) -> Iterator[Section]:
    from gradflow.render import figures
    from gradflow.render.picture import loose_axes

    def drawn(name: str, title: str, lead: str, figure: FigureBase) -> Section:
        return Section(name, title, lead, _figure(figure, title, name))

    yield drawn(
        "flow",
        "Where the gradient goes",
        "Every branch runs back through the same modules and reaches each shared weight along its own arrow.",
        figures.flow(step),
    )
    yield drawn(
        "contributions",
        "How large each contribution is",
        "A sum left of its contributions means that they cancel in part.",
        figures.contributions(step, ax=loose_axes()).figure,
    )
    yield drawn(
        "cosines",
        "Which way the contributions point",
        "Over all parameters: +1 along each other, 0 at right angles, −1 against each other.",
        figures.cosines(step, ax=loose_axes()).figure,
    )
    if len(recording) > 1:
        scalar = "loss" if "loss" in recording.last.scalars else None
        yield drawn(
            "history",
            "Step by step",
            "Shaded steps are those in which two branches pull against each other.",
            figures.history(recording, scalar=scalar, ax=loose_axes()).figure,
        )
    if any(p.delta is not None for p in step):
        yield drawn("deltas", "Whose delta it is", ACCOUNTING, figures.deltas(step, ax=loose_axes()).figure)


def _table(step: Step) -> Section:
    body = f'<div class="gf">{html.table(step_table(step), step.branches)}</div>'
    if len(step) > _FEW_ROWS:
        body = f"<details><summary>All {len(step)} parameters</summary>{body}</details>"
    return Section(
        "table", "In numbers", "The residual is 0 where the arrivals add up bitwise to the sum.", body
    )


def _figure(fig: FigureBase, title: str, name: str) -> str:
    from matplotlib.figure import Figure

    from gradflow.render.picture import described, to_svg

    assert isinstance(fig, Figure)
    words = escape(described(fig), quote=True)
    return f'<figure tabindex="0" aria-label="{words}">{to_svg(fig, title=title, prefix=name)}</figure>'


def _page(recording: Recording, step: Step, sections: list[Section], explorer: Standalone) -> str:
    style_sheet = (
        f":root {{\n{css_variables(LIGHT)}\n}}\n"
        f"@media (prefers-color-scheme: dark) {{ :root {{\n{css_variables(DARK)}\n}} }}\n"
        f"{html.style_sheet()}\n{Path(__file__).with_suffix('.css').read_text(encoding='utf-8')}\n"
        f"{explorer.style}"
    )
    digest = base64.b64encode(hashlib.sha256(explorer.script.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{digest}'"
    links = "".join(f'<li><a href="#{s.name}">{escape(s.title)}</a></li>' for s in sections)
    bodies = "\n".join(
        f'<section aria-labelledby="{s.name}"><h2 id="{s.name}">{escape(s.title)}</h2>'
        f'<p class="lead">{escape(s.lead)}</p>{s.body}</section>'
        for s in sections
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>gradflow report: {escape(of_recording(recording).heading)}</title>
<style>
{style_sheet}
</style>
</head>
<body>
<header>
<h1>One set of weights, {_ways(step)}one sum</h1>
{_introduction(recording, step)}
<nav aria-label="Contents"><ul>{links}</ul></nav>
</header>
<main>
{bodies}
</main>
<footer><p>{escape(ACCOUNTING)}</p>
<p>Made by gradflow from a recording; this file loads nothing from elsewhere.</p></footer>
<script type="module">{explorer.script}</script>
</body>
</html>
"""


def _ways(step: Step) -> str:
    count = len(step.branches)
    if not count:
        return ""
    words = ("", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    return f"{words[count] if count < len(words) else count} way{'' if count == 1 else 's'} back, "


def _introduction(recording: Recording, step: Step) -> str:
    """What the page is, in two sentences; the branches in their colours; the facts."""
    looks = [(escape(b), style(b, step.branches)) for b in step.branches]
    chips = "".join(
        f'<li><span class="gf-chip" style="background:{look.colour}" aria-hidden="true"></span>'
        f"{name} ({escape(look.letter)})</li>"
        for name, look in looks
    )
    story = of_recording(recording)
    facts = ". ".join(fact[:1].upper() + fact[1:] for fact in story.facts)
    return (
        "<p>Each branch of this network uses the same weights, and each sends a gradient of its own back to "
        "them; the weights receive only the sum. This page shows what every branch contributed in step "
        f"{step.index}, as measured in the training run itself, and what the optimizer made of it.</p>"
        f'<p class="lead">{escape(story.heading)}. {escape(facts)}.</p><ul class="ways">{chips}</ul>'
    )
