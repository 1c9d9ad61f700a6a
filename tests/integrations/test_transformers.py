"""The callback in a real ``transformers.Trainer``, on a GPT-2 built from its config, without downloads."""

import logging

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

from gradflow.errors import InvalidArgumentError
from gradflow.integrations.transformers import GradflowCallback
from gradflow.storage import load
from tests import laws

TIED = {"input": "transformer.wte", "output": "lm_head"}
TEXT = "Readability counts. Special cases aren't special enough to break the rules. " * 8
logging.getLogger("transformers").setLevel(logging.ERROR)


def gpt2(dropout=0.1, tied=True):
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=128,
        n_positions=16,
        n_embd=8,
        n_layer=1,
        n_head=2,
        bos_token_id=0,
        eos_token_id=0,
        resid_pdrop=dropout,
        embd_pdrop=dropout,
        attn_pdrop=dropout,
        tie_word_embeddings=tied,
    )
    return GPT2LMHeadModel(config)


def pieces(length=12):
    codes = torch.tensor(list(TEXT.encode("ascii")))
    return [{"input_ids": piece, "labels": piece} for piece in codes[: 40 * length].split(length)]


def train(tmp_path, callback=None, model=None, attach=False, fail=False, **options):
    """Train four steps: (what the run leaves, the trainer, the weights before each step and at the end)."""
    model = model or gpt2()
    asked = {"max_steps": 4, "learning_rate": 0.01, "logging_steps": 1, "report_to": [], **options}
    args = TrainingArguments(
        output_dir=str(tmp_path),
        per_device_train_batch_size=2,
        use_cpu=True,
        save_strategy="no",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        **asked,
    )
    before, losses = [], []

    class Watched(Trainer):
        def training_step(self, *given, **named):
            if fail:
                raise KeyError("the user's own")
            before.append(laws.copies(model))
            losses.append(super().training_step(*given, **named))
            return losses[-1]

    callbacks = [callback] if callback is not None and not attach else None
    trainer = Watched(model, args, train_dataset=pieces(), callbacks=callbacks)
    if attach:
        callback.attach(trainer)
    trainer.train()
    before.append(laws.copies(model))
    return laws.state_of(model, [trainer.optimizer.optimizer], losses), trainer, before


@pytest.fixture(autouse=True)
def _quiet(capsys):
    """The trainer prints what it logs."""
    yield
    capsys.readouterr()


@pytest.mark.parametrize(
    "options", [{}, {"gradient_accumulation_steps": 2}, {"bf16": True}], ids=["plain", "accumulated", "bf16"]
)
def test_training_with_the_callback_is_the_same_to_the_last_bit(tmp_path, options):
    callback = GradflowCallback(branches=TIED, keep="tensors")
    with_it, trainer, _ = train(tmp_path, callback, **options)
    laws.assert_bitwise_equal(with_it, train(tmp_path, **options)[0])
    assert len(callback.recording) == trainer.state.global_step == 4
    assert all(step.complete for step in callback.recording)


def leaves_apart(state, piece):
    """An oracle: embedding and head as two weights of their own, on a model that does not tie them."""
    model = gpt2(dropout=0.0, tied=False)
    assert model.lm_head.weight is not model.transformer.wte.weight
    model.load_state_dict(state)
    model.train()
    items = piece.numel()  # the trainer divides by all labels, also by those that are shifted out
    model(input_ids=piece, labels=piece, num_items_in_batch=items).loss.backward()
    return model.transformer.wte.weight.grad, model.lm_head.weight.grad


def test_both_uses_of_the_tied_matrix_are_told_apart_as_by_two_matrices(tmp_path):
    model = gpt2(dropout=0.0)  # the oracle runs the model again
    seen = []
    model.transformer.wte.register_forward_pre_hook(lambda _m, args: seen.append(args[0].clone()))
    callback = GradflowCallback(branches=TIED, keep="tensors")
    _, _, before = train(tmp_path, callback, model)
    for i, (step, piece) in enumerate(zip(callback.recording, seen, strict=True)):
        laws.assert_gradient_conserved(step)
        laws.assert_delta_conserved(step, before[i], before[i + 1])
        tied = step["transformer.wte.weight"]
        assert tied is step["lm_head.weight"]
        read, written = leaves_apart(before[i], piece)
        np.testing.assert_allclose(tied.contribution("input"), read.numpy(), rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(tied.contribution("output"), written.numpy(), rtol=1e-5, atol=1e-7)


def test_measures_join_the_log_and_the_loss_joins_the_step(tmp_path):
    callback = GradflowCallback(branches=TIED, layers=("transformer.wte",))
    _, trainer, _ = train(tmp_path, callback)
    logs = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert len(logs) == 4
    for entry, step in zip(logs, callback.recording, strict=True):
        assert step.scalars["loss"] == entry["loss"]
        tied = step["transformer.wte.weight"]
        assert entry["gradflow/transformer.wte/norm/input"] == pytest.approx(tied.norms["input"])
        assert entry["gradflow/delta_norm"] == step.layer("").delta.norm
    silent = GradflowCallback(branches=TIED, log=False)
    _, trainer, _ = train(tmp_path, silent)
    assert not [name for entry in trainer.state.log_history for name in entry if "gradflow" in name]
    assert len(silent.recording) == 4


def test_attached_first_its_measures_are_reported_to_tensorboard(tmp_path, monkeypatch):
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "board"))
    train(tmp_path, GradflowCallback(branches=TIED), attach=True, report_to=["tensorboard"])
    [events] = (tmp_path / "board").rglob("events.out.*")
    assert b"gradflow/cosine/input-output" in events.read_bytes()


def test_nothing_is_left_after_training_and_after_a_failure(tmp_path):
    model, other = gpt2(), gpt2()
    train(tmp_path, None, other)  # the trainer leaves an attribute of its own
    plain = laws.hook_counts(other)
    train(tmp_path, GradflowCallback(branches=TIED), model)
    assert laws.hook_counts(model) == plain
    with GradflowCallback(branches=TIED) as callback, pytest.raises(KeyError):
        train(tmp_path, callback, model, fail=True)
    assert laws.hook_counts(model) == plain


def test_options_go_to_watch(tmp_path):
    path = tmp_path / "run.gradflow"
    train(tmp_path, GradflowCallback("transformer", every=2, params="wte.*", to=path))
    recording = load(path)
    assert [step.index for step in recording] == [0, 2]
    assert recording.params == ("wte.weight",)
    with pytest.raises(InvalidArgumentError, match=r"no option of gradflow\.watch"):
        GradflowCallback(whatever=1)
