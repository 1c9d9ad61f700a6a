"""The Lightning callback in a real ``Trainer``."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import lightning
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from torch.utils.data import DataLoader

from gradflow.errors import InvalidArgumentError, NothingToWatchError
from gradflow.integrations.lightning import GradflowCallback
from gradflow.storage import load
from tests import laws
from tests.integrations import noise
from tests.integrations.triplets import NAMES, batches, encoder, loss_of

pytestmark = noise.LIGHTNING
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


class Triplets(lightning.LightningModule):
    def __init__(self, optimizer=torch.optim.Adam, fails_at=None):
        super().__init__()
        self.encoder, self.kind, self.fails_at = encoder(), optimizer, fails_at
        self.losses, self.before = [], []

    def training_step(self, batch, index):
        if index == self.fails_at:
            raise KeyError("the user's own")
        loss = loss_of(self.encoder, batch)
        self.losses.append(loss.detach())
        self.log("loss", loss)
        return loss

    def on_train_batch_start(self, batch, index):
        self.before.append(laws.copies(self.encoder))

    def configure_optimizers(self):
        return self.kind(self.parameters(), lr=0.01)


class InTurn(Triplets):
    """Manual optimization: two optimizers step by turns, each after a backward of its own."""

    automatic_optimization = False

    def configure_optimizers(self):
        first, second = self.encoder[1], self.encoder[3]
        return [torch.optim.SGD(first.parameters(), lr=0.1), torch.optim.Adam(second.parameters(), lr=0.1)]

    def training_step(self, batch, index):
        for optimizer in self.optimizers():
            optimizer.zero_grad()
            loss = loss_of(self.encoder, batch)
            self.manual_backward(loss)
            optimizer.step()
            self.losses.append(loss.detach())


def fit(model, callback=None, steps=3, logger=False, **options):
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=1,
        callbacks=[] if callback is None else [callback],
        logger=logger,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )
    torch.manual_seed(1)
    trainer.fit(model, DataLoader(batches(steps), batch_size=None))
    model.before.append(laws.copies(model.encoder))
    return laws.state_of(model, trainer.optimizers, model.losses)


def watched(**options):
    return GradflowCallback("encoder", branches=NAMES, keep="tensors", **options)


@pytest.mark.parametrize(
    ("model", "options"),
    [
        pytest.param(Triplets, {}, id="plain"),
        pytest.param(Triplets, {"accumulate_grad_batches": 2}, id="accumulated"),
        pytest.param(Triplets, {"gradient_clip_val": 0.01}, id="clipped"),
        pytest.param(Triplets, {"precision": "bf16-mixed"}, id="bf16"),
        pytest.param(InTurn, {}, id="manual"),
    ],
)
def test_a_fit_with_the_callback_is_the_same_to_the_last_bit(model, options):
    callback = watched()
    with_it = fit(model(), callback, steps=4, **options)
    laws.assert_bitwise_equal(with_it, fit(model(), steps=4, **options))
    assert len(callback.recording) == {"accumulate_grad_batches": 2}.get(next(iter(options), ""), 4) * (
        2 if model is InTurn else 1
    )
    assert all(step.complete for step in callback.recording)


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
def test_gradients_and_deltas_are_conserved_and_are_those_of_the_oracle(optimizer):
    model, callback = Triplets(optimizer), watched()
    fit(model, callback)
    assert callback.recording.branches == NAMES
    for i, (step, batch) in enumerate(zip(callback.recording, batches(3), strict=True)):
        laws.assert_gradient_conserved(step)
        laws.assert_delta_conserved(step, model.before[i], model.before[i + 1])
        assert step.scalars["loss"] == model.losses[i].item()
        twin = encoder()
        twin.load_state_dict(model.before[i])
        truth = laws.two_stage(twin, lambda net, batch=batch: loss_of(net, batch), "", NAMES)
        for p in step:
            assert "unattributed" not in p.delta.contributors
            for name in NAMES:
                np.testing.assert_allclose(
                    p.contribution(name), truth[name][p.fqn].numpy(), rtol=1e-6, atol=1e-9
                )


def test_a_clipped_step_is_split_as_the_optimizer_read_it():
    model, callback = Triplets(torch.optim.SGD), watched()
    fit(model, callback, gradient_clip_val=0.01)
    step = callback.recording.last
    laws.assert_delta_conserved(step, model.before[-2], model.before[-1])
    scales = {round(p.scale, 5) for p in step}
    assert len(scales) == 1
    assert scales.pop() < 1


def test_nothing_is_left_after_the_fit_and_after_a_failure():
    for fails_at in (None, 1):
        model, callback = Triplets(fails_at=fails_at), watched()
        plain = laws.hook_counts(model.encoder)
        if fails_at is None:
            fit(model, callback)
        else:
            with pytest.raises(KeyError, match="the user's own"):
                fit(model, callback)
        assert laws.hook_counts(model.encoder) == plain
        assert len(callback.recording) == (3 if fails_at is None else 1)


def test_every_logger_gets_the_measures_when_the_trainer_logs(tmp_path):
    class Mine(Logger):
        name, version = "mine", 0

        def __init__(self):
            super().__init__()
            self.got = {}

        def log_hyperparams(self, *_args, **_kwargs):
            pass

        def log_metrics(self, metrics, step=None):
            if any(name.startswith("gradflow") for name in metrics):
                self.got[step] = metrics

    mine, callback = Mine(), watched(layers=("1",))
    loggers = [mine, CSVLogger(tmp_path), TensorBoardLogger(tmp_path)]
    fit(Triplets(), callback, steps=5, logger=loggers, log_every_n_steps=2)
    assert sorted(mine.got) == [2, 4]
    step, told = callback.recording[3], mine.got[4]
    assert told["gradflow/norm/anchor"] == step.layer("").norms["anchor"]
    assert told["gradflow/1/cosine/anchor-negative"] == step.layer("1").cosine("anchor", "negative")
    [csv] = tmp_path.rglob("metrics.csv")
    assert "gradflow/delta_share/anchor" in csv.read_text(encoding="utf-8")
    [events] = tmp_path.rglob("events.out.*")
    assert b"gradflow/cancellation" in events.read_bytes()


def test_silence_is_kept_when_asked_for(tmp_path):
    fit(Triplets(), watched(log=False), logger=CSVLogger(tmp_path), log_every_n_steps=1)
    [csv] = tmp_path.rglob("metrics.csv")
    assert "loss" in csv.read_text(encoding="utf-8")
    assert "gradflow" not in csv.read_text(encoding="utf-8")


def test_options_go_to_watch_and_modules_may_be_named_by_path(tmp_path):
    path = tmp_path / "run.gradflow"
    callback = GradflowCallback(
        "encoder", branches={"first": "1", "last": "3"}, every=2, params="*.weight", to=path
    )
    fit(Triplets(), callback, steps=4)
    recording = load(path)
    assert [step.index for step in recording] == [0, 2]
    assert recording.branches == ("first", "last")
    assert recording.params == ("1.weight", "3.weight")


def test_an_optimizer_of_other_modules_is_left_alone():
    callback = GradflowCallback("encoder.1", keep="tensors")
    laws.assert_bitwise_equal(fit(InTurn(), callback), fit(InTurn()))
    assert [step.params for step in callback.recording] == [("weight", "bias")] * 3
    assert all(step["weight"].delta.rule == "SGD" for step in callback.recording)


def test_each_of_two_processes_records_its_own_and_the_first_logs(tmp_path):
    """Two processes of Lightning's own, over gloo: DDP averages what each of them brought."""
    script = Path(__file__).parent / "lightning_ranks.py"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    run = subprocess.run(
        [sys.executable, "-W", "ignore", str(script), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        timeout=240,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    ranks = [load(tmp_path / f"run.rank{rank}.gradflow") for rank in (0, 1)]
    gradients = [torch.load(tmp_path / f"grads{rank}.pt") for rank in (0, 1)]
    assert [len(recording) for recording in ranks] == [2, 2]
    for i in range(2):
        steps = [recording[i] for recording in ranks]
        for p, q in zip(*steps, strict=True):
            assert p.residual == q.residual == 0.0
            assert not np.array_equal(p.total, q.total)  # each has its own batch
            mean = (p.total + q.total) / 2
            for read in gradients:  # what DDP left in `.grad`, on both
                np.testing.assert_allclose(mean, read[i][p.fqn].numpy(), rtol=1e-5, atol=1e-7)
    [csv] = tmp_path.rglob("metrics.csv")
    assert "gradflow/norm/anchor" in csv.read_text(encoding="utf-8")


def test_a_second_fit_records_anew():
    callback = watched()
    fit(Triplets(), callback, steps=2)
    fit(Triplets(), callback, steps=3)
    assert len(callback.recording) == 3


def test_mistakes_are_told_before_and_at_the_start():
    with pytest.raises(InvalidArgumentError, match=r"no option of gradflow\.watch") as error:
        GradflowCallback(brances=NAMES)
    assert error.value.do == "did you mean 'branches'?"
    with pytest.raises(InvalidArgumentError) as error:
        fit(Triplets(), GradflowCallback("encodr"))
    assert error.value.what == "Triplets has no module 'encodr'"
    assert error.value.where == "GradflowCallback"
    assert error.value.do.startswith("did you mean 'encoder'")
    with pytest.raises(NothingToWatchError):
        fit(Triplets(), GradflowCallback("encoder.0"))
