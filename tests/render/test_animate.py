"""Moving pictures: a frame a step, boxes that stand still, arrows of one scale."""

import numpy as np
import pytest
from PIL import Image

from gradflow.errors import InvalidArgumentError
from gradflow.graph import Edge, Graph, Node
from gradflow.recording import Recording
from gradflow.render import animate, layout
from gradflow.render.dot import to_dot
from tests import records

pytest.importorskip("pygraphviz")


def graph():
    """Two modules in three branches, as ``tests.records`` has them."""
    nodes, edges = [Node("loss", "loss", "loss")], []
    for branch in records.PATHS:
        calls = (("", 0),)
        nodes.append(Node(f"fc {branch}", "op", "AddmmBackward0", (*calls, ("fc", 0)), branch))
        nodes.append(Node(f"conv1 {branch}", "op", "ConvolutionBackward0", (*calls, ("conv1", 0)), branch))
        edges.append(Edge("loss", f"fc {branch}", branch=branch))
        edges.append(Edge(f"fc {branch}", f"conv1 {branch}", branch=branch))
        edges.append(Edge(f"fc {branch}", "fc.weight", 1, branch))
        edges.append(Edge(f"conv1 {branch}", "conv1.weight", 1, branch))
    nodes += [
        Node(n, "parameter", n, names=(n,), shape=(4, 3), numel=12) for n in ("fc.weight", "conv1.weight")
    ]
    return Graph(tuple(nodes), tuple(edges), (), records.PATHS)


def test_a_gif_has_a_frame_for_each_step(tmp_path):
    path = graph().save(tmp_path / "flow.gif", step=records.recording(3))
    with Image.open(path) as picture:
        assert picture.n_frames == 3
        frames = []
        for number in range(3):
            picture.seek(number)
            frames.append(np.asarray(picture.convert("RGB")))
    assert not np.array_equal(frames[0], frames[1])
    assert (frames[0][:40] == frames[1][:40]).mean() > 0.99  # the loss stands still


def test_boxes_stand_still_and_arrows_have_one_scale():
    view = graph().collapse(1)
    views = [view.with_values(step) for step in records.recording(3)]
    fixed = animate._fixed(views, layout.Look())
    norms = [edge.norm for one in views for edge in one.edges if edge.norm is not None]
    assert fixed.largest == pytest.approx(max(norms))
    places = [
        [part for part in to_dot(one, fixed=fixed).split() if part.startswith(("pos=", "width=", "height="))]
        for one in views
    ]
    assert places[0] == places[1] == places[2]


def test_a_long_recording_is_thinned_out_evenly():
    chosen = animate._evenly(range(1000))
    assert len(chosen) == animate.MOST_FRAMES
    assert (chosen[0], chosen[-1]) == (0, 999)
    assert set(np.diff(chosen)) <= {8, 9}


def test_a_moving_picture_wants_a_recording(tmp_path):
    with pytest.raises(InvalidArgumentError, match=r"\.gif shows several steps, and step is not given"):
        graph().save(tmp_path / "flow.gif")
    with pytest.raises(InvalidArgumentError, match="a single one") as error:
        graph().save(tmp_path / "flow.gif", step=records.step())
    assert error.value.do == "graph.save('flow.gif', step=flow.recording)"
    with pytest.raises(InvalidArgumentError, match="no steps"):
        graph().save(tmp_path / "flow.gif", step=Recording())


def test_a_still_picture_of_a_recording_shows_its_last_step(tmp_path):
    recording = records.recording(3)
    whole = graph()
    last = whole.save(tmp_path / "last.dot", step=recording).read_text(encoding="utf-8")
    assert last == whole.with_values(recording.last).to_dot()


def test_a_video_is_made_by_ffmpeg(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(animate.shutil, "which", lambda name: "/bin/ffmpeg" if name == "ffmpeg" else None)
    run = animate.subprocess.run

    def ran(command, **options):
        if command[0] == "/bin/ffmpeg":
            seen.append((command, len(options["input"])))
            return None
        return run(command, **options)

    monkeypatch.setattr(animate.subprocess, "run", ran)
    graph().save(tmp_path / "flow.mp4", step=records.recording(2))
    ((command, size),) = seen
    width, height = map(int, command[command.index("-s") + 1].split("x"))
    assert size == 2 * width * height * 3
    assert width % 2 == height % 2 == 0
    assert command[-1] == str(tmp_path / "flow.mp4")
