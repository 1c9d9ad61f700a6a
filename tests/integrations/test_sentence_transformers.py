"""A triplet run of sentence-transformers on a BERT of one tiny layer, built from its config."""

import logging
from functools import partial

import numpy as np
import pytest
import torch
from datasets import Dataset
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.sentence_transformer.losses import (
    CachedMultipleNegativesRankingLoss,
    TripletLoss,
)
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from transformers import BertConfig, BertModel, BertTokenizer

from gradflow import data
from gradflow.errors import InvalidArgumentError
from gradflow.integrations.sentence_transformers import GradflowCallback
from tests import laws

NAMES = ("anchor", "positive", "negative")
LINES = [line for line in data.zen().splitlines() if line]
logging.getLogger("sentence_transformers").setLevel(logging.ERROR)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model of random weights as a folder, which is how sentence-transformers takes one."""
    path = tmp_path_factory.mktemp("bert")
    words = sorted({word.strip(".,!-*").lower() for line in LINES for word in line.split()} - {""})
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    (path / "vocab.txt").write_text("\n".join(vocabulary), encoding="utf-8")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=32,
        hidden_dropout_prob=0.0,  # the oracle runs the model again
        attention_probs_dropout_prob=0.0,
    )
    BertModel(config).save_pretrained(path)
    BertTokenizer(str(path / "vocab.txt")).save_pretrained(path)
    return str(path)


def model_of(folder):
    bert = Transformer(folder, max_seq_length=16)
    return SentenceTransformer(modules=[bert, Pooling(8)], device="cpu")


def train(folder, tmp_path, callback=None, model=None, loss_of=TripletLoss):
    """Train three steps: (what the run leaves, the batches, the weights before each step and at the end)."""
    model = model or model_of(folder)
    texts = {name: LINES[i : i + 6] for name, i in zip(NAMES, (0, 1, 9), strict=True)}
    args = SentenceTransformerTrainingArguments(
        output_dir=str(tmp_path),
        per_device_train_batch_size=2,
        max_steps=3,
        learning_rate=0.01,
        logging_steps=1,
        report_to=[],
        use_cpu=True,
        save_strategy="no",
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    loss = loss_of(model)
    before, batches, losses = [], [], []

    class Watched(SentenceTransformerTrainer):
        def compute_loss(self, model, inputs, *given, **named):
            before.append(laws.copies(self.model))
            batches.append([dict(column) for column in self.collect_features(inputs)[0]])
            value = super().compute_loss(model, inputs, *given, **named)
            losses.append(value.detach())
            return value

    callbacks = [] if callback is None else [callback]
    trainer = Watched(model, args, train_dataset=Dataset.from_dict(texts), loss=loss, callbacks=callbacks)
    trainer.train()
    before.append(laws.copies(model))
    state = laws.state_of(model, [trainer.optimizer.optimizer], losses)
    return state, batches, before, trainer


def test_the_columns_are_branches_as_the_two_stage_oracle_has_them(folder, tmp_path, capsys):
    callback = GradflowCallback(keep="tensors")
    with_it, batches, before, trainer = train(folder, tmp_path, callback)
    assert len(callback.recording) == 3
    assert callback.recording.branches == NAMES
    for i, step in enumerate(callback.recording):
        laws.assert_gradient_conserved(step)
        laws.assert_delta_conserved(step, before[i], before[i + 1])
        truth = column_by_column(model_of(folder), before[i], batches[i])
        noise = 1e-12 * max(np.abs(g).max() for part in truth.values() for g in part.values())
        for p in step:  # the true gradient of an attention key's bias is zero: only noise arrives there
            effort = sum(np.abs(truth[name][p.fqn]).max() for name in NAMES)
            allowed = 2e-6 * effort + noise
            for name in NAMES:
                np.testing.assert_allclose(p.contribution(name), truth[name][p.fqn], atol=allowed, rtol=0)
    assert "gradflow/norm/negative" in trainer.state.log_history[0]
    laws.assert_bitwise_equal(with_it, train(folder, tmp_path)[0])
    capsys.readouterr()


def column_by_column(model, state, columns):
    """The oracle: every column embedded on its own, with the other columns detached."""
    model.load_state_dict(state)
    model.train()
    params = dict(model.named_parameters())
    found = {}
    for kept in range(3):
        embedded = [model(dict(column))["sentence_embedding"] for column in columns]
        embedded = [e if i == kept else e.detach() for i, e in enumerate(embedded)]
        loss = TripletLoss(model).compute_loss_from_embeddings(embedded, None)
        grads = torch.autograd.grad(loss, params.values(), allow_unused=True)
        found[NAMES[kept]] = {n: g.numpy() for n, g in zip(params, grads, strict=True) if g is not None}
    return found


def test_a_loss_that_embeds_again_inside_the_backward_is_told_as_unclaimed(folder, tmp_path, capsys):
    loss_of = partial(CachedMultipleNegativesRankingLoss, mini_batch_size=1)
    callback = GradflowCallback()
    with_it = train(folder, tmp_path, callback, loss_of=loss_of)[0]
    laws.assert_bitwise_equal(with_it, train(folder, tmp_path, loss_of=loss_of)[0])
    for step in callback.recording:
        assert step.complete
        assert {name for p in step for name in p.contributors} == {"unclaimed"}
        assert "unclaimed" in [finding.code for finding in step.findings]
    capsys.readouterr()


def test_nothing_is_left_behind(folder, tmp_path, capsys):
    model, other = model_of(folder), model_of(folder)
    train(folder, tmp_path, None, other)
    plain = laws.hook_counts(other)
    train(folder, tmp_path, GradflowCallback(every=2), model)
    assert laws.hook_counts(model) == plain
    capsys.readouterr()


def test_every_second_step_is_told_apart_as_every_step_is(folder, tmp_path, capsys):
    all_of_them, some = GradflowCallback(), GradflowCallback(every=2)
    train(folder, tmp_path, all_of_them)
    train(folder, tmp_path, some)
    assert [step.index for step in some.recording] == [0, 2]
    assert some.recording.last.layer("").norms == all_of_them.recording.last.layer("").norms
    capsys.readouterr()


@pytest.mark.parametrize(
    "columns", [("a", "a"), "anchor", ("shared",)], ids=["twice", "one string", "reserved"]
)
def test_columns_that_cannot_be_branches_are_refused(columns):
    with pytest.raises(InvalidArgumentError):
        GradflowCallback(columns)
