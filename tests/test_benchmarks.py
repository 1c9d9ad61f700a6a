"""The harness of benchmarks/ runs, and what it counts is right; no time is asserted."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import gradflow
from benchmarks import __main__ as program
from benchmarks import dot_program, faults, floors, growth, manners, memory, page, peers, steps, trunk
from benchmarks.nets import NETS, Net, adam, chain, encoder_a, sgd
from benchmarks.page import Row, Table
from benchmarks.timing import Spread, Times, Variant, interleave, pooled

TINY = Net("tiny", "a chain of two", chain(2, 4, 2, 2), 99.0, rounds=2, steps=5)


@pytest.mark.parametrize("net", [pytest.param(n, id=n.name) for n in NETS.values()])
def test_a_net_is_watched_in_every_way(net):
    if net.name == "B32":
        net = replace(net, build=NETS["B4"].build)  # the same but for its batch
    job = net.build(sgd)
    found, flows = steps.ways(job)
    assert list(found) == ["plain", "floor", "watched", "bare", "every 10th", "floor, every 10th"]
    for way in found.values():
        before = [p.detach().clone() for p in job.model.parameters()]
        way.on()
        way.work()
        assert any(not torch.equal(a, b) for a, b in zip(before, job.model.parameters(), strict=True))
        way.off()
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in job.model.modules())
        assert not any(p._backward_hooks or p._post_accumulate_grad_hooks for p in job.model.parameters())
    for flow in flows:
        assert len(flow.recording) == 1
        assert "incomplete" not in {finding.code for finding in flow.recording.last.findings}
        flow.close()


def test_deltas_are_watched_from_the_first_step_on():
    for name, count in (("plain", 0), ("watched", 1), ("deltas", 1)):
        step, flows = steps.kept_on(TINY.build(adam), name)
        step()
        assert len(flows) == count
        for flow in flows:
            assert (flow.recording.last["0.weight"].delta is None) == (name == "watched")
            flow.close()


@pytest.mark.parametrize("manner", manners.MANNERS, ids=lambda manner: manner.what)
def test_every_manner_is_watched(manner, tmp_path):
    ways, flow = manners._ways(manner, next(iter(manners.NETS)), tmp_path / "steps.gradflow")
    ways["plain"].work()
    ways["watched"].on()
    for _ in range(2):
        ways["watched"].work()
    ways["watched"].off()
    step = flow.recording.last
    flow.close()
    assert step.complete
    assert all(len(param.contributors) >= 3 for param in step)
    assert len(step.params) == (1 if "params" in manner.options else 11)
    assert (step["0.weight"].scale < 1.0) == manner.clip
    assert (step["0.weight"].delta is not None) == manner.adam


def test_manners_are_compared_with_a_plain_step():
    rows = manners.table(0.1, manners.MANNERS[:2]).rows
    assert len(rows) == 4
    assert all(isinstance(row.cpu, Spread) for row in rows)


@pytest.mark.parametrize("measure", [steps.whole, steps.every_tenth, steps.deltas])
def test_steps_are_compared_round_by_round(measure):
    table = measure(nets=[TINY])
    assert [row.what for row in table.rows] == ["a chain of two"]
    assert isinstance(table.rows[0].cpu, Spread)


def test_page_faults_are_counted_in_processes_that_have_the_allocator_told(monkeypatch):
    monkeypatch.setattr(faults, "_PROCESSES", 1)
    rows = faults.table(0.01, names=("MTL",)).rows
    assert [row.what.split(", ")[-1] for row in rows] == ["as it comes", "told to keep its memory"]
    assert all(isinstance(row.cpu, Spread) for row in rows)


def test_page_faults_are_those_of_memory_that_is_new():
    counts = []
    step = faults._counted(lambda: torch.empty(1 << 28, dtype=torch.uint8).fill_(1), counts)
    step()
    assert counts[0] > 50  # of 4 KiB, or of 2 MiB


def test_the_trunk_is_split_beside_the_ways_by_hand():
    rows = trunk.split(0.05).rows
    assert {row.what for row in rows if isinstance(row.cpu, Spread)} >= {
        "a plain step",
        'gradflow, `stems="split"`',
        "three `autograd.grad` instead of `backward`, summed by hand",
    }
    assert sum("TorchJD" in row.what for row in rows) == 2  # measured, or why not


def test_a_target_that_the_floor_misses_too_lies_below_it():
    found = Spread.of([2.0])
    assert Row("a", found, target=1.0, floor=Spread.of([1.5])).verdict == "below the floor"
    assert Row("a", found, target=1.0, floor=Spread.of([0.5])).verdict == "missed"
    assert Row("a", found, target=2.0, floor=Spread.of([2.5])).verdict == "met"


def test_floors_take_the_step_that_training_takes():
    for floor in (floors.bare, lambda job: floors.least(job)[0], _least_split):
        one, other = (NETS["A4"].build(adam) for _ in range(2))
        way = floor(other)
        way.on()
        for _ in range(2):
            one.step()
            way.work()
        for a, b in zip(one.model.parameters(), other.model.parameters(), strict=True):
            assert torch.equal(a, b)


def _least_split(job):
    return Variant(floors.least_split(job)[0])


@pytest.mark.parametrize("name", ["A4", "MLP", "LSTM50"])
def test_the_floor_records_what_gradflow_records(name):
    job, other = (NETS[name].build(sgd) for _ in range(2))
    way, record = floors.least(job)
    way.on()
    way.work()
    flow = gradflow.watch(other.model, branches=other.branches)
    other.step()
    flow.step()
    flow.close()
    found, wanted = record(), flow.recording[0]
    assert found.params == wanted.params
    for fqn in wanted.params:
        one, own = found[fqn], wanted[fqn]
        order = [one.contributors.index(contributor) for contributor in own.contributors]
        np.testing.assert_array_equal(one.gram[np.ix_(order, order)], own.gram)
        for field in ("names", "shape", "absent", "total_norm", "scale", "residual", "uses"):
            assert getattr(one, field) == getattr(own, field)


def test_by_hand_is_the_step_that_backward_takes():
    one, other = (NETS["A4"].build(sgd) for _ in range(2))
    one.step()
    peers.by_hand(other)()
    for a, b in zip(one.model.parameters(), other.model.parameters(), strict=True):
        torch.testing.assert_close(a, b)
    one, other = (NETS["MTL"].build(sgd) for _ in range(2))
    one.step()
    trunk.grads_instead(other)
    for a, b in zip(one.model.parameters(), other.model.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_a_peer_that_fails_is_told_of_with_its_error():
    def broken(_job):
        raise RuntimeError("no such\nthing")

    trial = peers.tried({"broken": broken}, TINY.build, rounds=1, steps=1)
    assert set(trial.times) == {"a plain step"}
    assert trial.extra == {"a plain step": 0}
    assert trial.failed == {"broken": "RuntimeError: no such thing"}


def test_peers_are_called_or_their_error_is_told():
    table = peers.beside(0.1, nets=[NETS["A4"]])
    told = {row.what: row for row in table.rows}
    assert set(told) >= {
        "a plain step",
        "gradflow.watch",
        "torchviz `make_dot`",
        "torchexplorer `watch`, each step",
    }
    assert isinstance(told["gradflow.watch"].cpu, Spread)
    rows = peers.per_sample(0.1, encoders=[("net A", encoder_a)]).rows
    assert {row.what for row in rows} >= {"gradflow.watch", "Opacus `GradSampleModule`"}


def test_live_bytes_are_counted_at_their_peak_and_at_the_end():
    most, last = memory.live_bytes(lambda: torch.ones(1000).add(1.0))
    assert 8000 <= most < 8100  # and the number 1.0 itself
    assert 4000 <= last < 4100


@pytest.mark.parametrize("count", [2, 3, 5])
def test_watching_keeps_a_copy_of_a_parameter_for_each_path_but_one_and_a_little(count):
    case = memory.Case("", chain(4, 512, 4, count), branches=count, is_bound=True)
    most, last = memory.extra(case)
    assert most <= case.target
    assert last < 0.001
    assert memory.extra(replace(case, steps=6)) == (
        most,
        last,
    )  # counted, not sampled, and no step adds to it


def test_momentum_is_kept_for_each_contributor():
    case = memory.Case("", chain(4, 512, 4, 3), memory.momentum, splits=True)
    assert memory.extra(case)[1] == pytest.approx(3, abs=0.01)


def test_a_step_on_disk_takes_less_than_its_target():
    assert 0 < memory.disk_bytes(4) <= 600


def test_growth_is_fitted_and_drawn(tmp_path):
    sweeps = [replace(sweep, sizes=(4, 8)) for sweep in growth.SWEEPS]
    table = growth.table(0.1, sweeps, tmp_path / "growth.svg")
    assert len(table.rows) == len(growth.SWEEPS)
    picture = (tmp_path / "growth.svg").read_text("utf-8")
    assert "<svg" in picture
    assert "(growth.svg)" in table.notes[0]


def test_a_slope_is_the_exponent():
    sizes = np.array([1.0, 2.0, 4.0])
    assert growth.slope(sizes, 3 * sizes**1.5) == pytest.approx(1.5)
    assert math.isnan(growth.slope([1, 2], [-1, 1]))


def test_the_stand_in_for_dot_lays_out(tmp_path, capfdbinary):
    source = tmp_path / "graph"
    source.write_text("digraph { a -> b }", "utf-8")
    with dot_program.provided() as told:
        assert told
    dot_program.draw(["-Tsvg", "-o", str(tmp_path / "x.svg"), str(source)])
    dot_program.draw(["-Tplain", "-O", str(source)])
    assert b"<svg" in (tmp_path / "x.svg").read_bytes()
    assert b"edge a b" in (tmp_path / "graph.plain").read_bytes()


def test_quartiles_of_a_spread():
    assert Spread.of([1.0, 2.0, 3.0, 4.0, 5.0]) == Spread(3.0, 2.0, 4.0)
    assert str(Spread.of([2.0])) == "2.000"


def test_rounds_are_compared_one_by_one():
    one, other = Times([2.0, 9.0, 4.0], [1.0, 1.0, 1.0]), Times([1.0, 3.0, 4.0], [2.0, 2.0, 2.0])
    assert one.over(other).cpu == [2.0, 3.0, 1.0]
    assert one.minus(other).wall == [-1.0, -1.0, -1.0]


def test_builds_share_the_rounds_that_were_asked_for():
    for net in NETS.values():
        assert sum(steps.builds_of(net, net.rounds)) == net.rounds
        assert len(steps.builds_of(net, net.rounds)) == net.builds
        assert steps.builds_of(net, 1) == [1]
    assert steps.builds_of(replace(TINY, builds=3), 8) == [3, 3, 2]


def test_rounds_of_several_builds_are_put_together():
    runs = [{"a": Times([1.0], [2.0])}, {"a": Times([3.0, 4.0], [5.0, 6.0])}]
    assert pooled(runs) == {"a": Times([1.0, 3.0, 4.0], [2.0, 5.0, 6.0])}


def test_variants_take_turns():
    done = []
    works = {name: lambda name=name: done.append(name) for name in "abc"}
    interleave(works, rounds=2, steps=1, warm=0)
    assert done == ["a", "b", "c", "b", "c", "a"]


def test_what_a_variant_needs_is_on_for_its_turns_only():
    done = []
    put = Variant(lambda: done.append("b"), lambda: done.append("on"), lambda: done.append("off"), steps=2)
    interleave({"a": lambda: done.append("a"), "b": put}, rounds=1, steps=1, warm=1)
    assert done == ["a", "on", "b", "off", "a", "on", "b", "b", "off"]


def table(value):
    return Table("Title", "Text.", [Row("thing", Spread.of([value]), target=1.0), Row("b", "no")], "×")


def test_a_page_keeps_what_is_not_measured_again(tmp_path, capsys):
    path = tmp_path / "page.md"
    page.written(path, {"one": lambda: table(0.5), "two": lambda: table(2.0)}, ["one", "two"])
    page.written(path, {"two": lambda: table(3.0)}, ["one", "two"])
    text = path.read_text("utf-8")
    assert "| thing | ≤ 1 | 0.500 | met |" in text
    assert "| thing | ≤ 1 | 3.000 | missed |" in text
    assert "2.000" not in text
    assert "Of 2 targets 1 are met, 0 lie below the floor, 1 are missed." in text
    path.write_text(text.replace("Machine: ", "Machine: another "), "utf-8")
    page.written(path, {"two": lambda: table(1.0)}, ["one", "two"])
    assert "0.500" not in path.read_text("utf-8")
    assert "dropped" in capsys.readouterr().out


def test_some_tables_are_measured_when_only_they_are_asked_for(tmp_path, capsys):
    path = tmp_path / "page.md"
    threads = torch.get_num_threads()
    program.main(["--only", "steps,disk", "--nets", "MTL", "--scale", "0.1", "--out", str(path)])
    torch.set_num_threads(threads)
    assert path.read_text("utf-8").count("\n## ") == 2
    assert "not split" in capsys.readouterr().out
