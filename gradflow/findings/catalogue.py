"""Every finding there is: what it means, who sees it, what to do. ``docs/findings.md`` is made from this."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CATALOGUE", "Entry"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One kind of finding.

    Attributes:
        code: Its short stable name.
        severity: ``"warning"``, ``"note"``, or ``"either"`` where the numbers decide.
        seen: Who sees it: ``"check"`` (``gradflow.check``, without training), ``"capture"`` (while training
            runs), ``"step"`` (``step.findings``) or ``"run"`` (``recording.findings()`` alone).
        means: What it says, in one or two sentences.
        do: What to do about it.
    """

    code: str
    severity: str
    seen: str
    means: str
    do: str


_SHARE = "Call one module for every input: `self.right = self.left`."
_NAME = 'Name the path where it runs: `with gradflow.branch("...")`, or `b.claim(tensor)`.'

CATALOGUE = (
    Entry(
        "copies",
        "either",
        "check",
        "Modules of one build hold equal weights and share none. A note where they stand in a stack "
        "(`Sequential`, `ModuleList`) or at most one of them trains.",
        _SHARE,
    ),
    Entry(
        "built-alike",
        "note",
        "check",
        "Modules of one build stand side by side with weights of their own; told with their distance.",
        _SHARE,
    ),
    Entry(
        "not-optimized",
        "warning",
        "check",
        "A trainable parameter is in no optimizer.",
        "Add it, or give `check` and `watch` every optimizer.",
    ),
    Entry(
        "optimized-twice",
        "warning",
        "check",
        "A parameter is in two optimizers (or twice in one): each moves it, with a momentum of its own.",
        "Give a shared parameter to one optimizer.",
    ),
    Entry(
        "stranger",
        "either",
        "check",
        "An optimizer holds parameters that the model does not have. A warning where they have the shape of"
        " parameters that no optimizer holds: it was made before a layer was replaced.",
        "Make the optimizer anew from `model.parameters()`.",
    ),
    Entry(
        "frozen",
        "either",
        "check",
        "Parameters have `requires_grad=False`. A warning if all have.",
        "`p.requires_grad_(True)` where that is not meant.",
    ),
    Entry(
        "gradient-left",
        "note",
        "check",
        "Parameters hold a gradient before anything ran; the next backward adds to it.",
        "`optimizer.zero_grad()`.",
    ),
    Entry(
        "evaluating",
        "note",
        "check",
        "The whole model is in eval mode.",
        "`model.train()`.",
    ),
    Entry(
        "frozen-norm",
        "either",
        "check",
        "Batch-norms are in eval mode in a model that trains. A warning if one of them has never seen a "
        "batch. Seen again in a run whenever modes change.",
        "`model.train()`, unless it is meant.",
    ),
    Entry(
        "moving-norm",
        "note",
        "check",
        "Batch-norms with frozen weights still follow the data with their statistics.",
        "Put them into eval mode after `model.train()`.",
    ),
    Entry(
        "bias-before-norm",
        "note",
        "check",
        "A bias stands right before a batch-norm (by the order in which layers are kept), which takes the "
        "mean away again: its true gradient is 0.",
        "`bias=False`.",
    ),
    Entry(
        "compiled",
        "note",
        "check",
        "A module is compiled: calls are told apart, what happens inside one is not.",
        "Watch what `torch.compile` returned; compile the model, not the step.",
    ),
    Entry(
        "fused",
        "note",
        "step",
        "A fused kernel (an LSTM) runs all time steps at once: calls are told apart, time steps are not.",
        "Run it unfused, or by cells (`nn.LSTMCell`).",
    ),
    Entry(
        "unseen",
        "warning",
        "capture",
        "Gradients arrived, but no call of a watched module was seen: the whole step, or a model after "
        "`watch`, was compiled.",
        "Compile the model first, watch what comes back, and leave the step as it is.",
    ),
    Entry(
        "branches-misfit",
        "warning",
        "capture",
        "The given names do not fit the number of calls, so that none was used.",
        _NAME,
    ),
    Entry(
        "by-reader",
        "note",
        "capture",
        "Parameters are used outside any branch and counted as the one branch's that reads the result.",
        _NAME,
    ),
    Entry(
        "passes",
        "note",
        "capture",
        "Telling apart what was asked for took more backward passes, told with their number.",
        'Leave out `stems="split"`, `branch.rows` or `branch.term` if that is too dear.',
    ),
    Entry(
        "rank",
        "note",
        "capture",
        "Under DDP or FSDP2: the contributions are those of one process, and the optimizer reads a mean over "
        "all.",
        "`gradflow.integrations.distributed.all_reduce(flow)` records those of all ranks together.",
    ),
    Entry(
        "ranks",
        "note",
        "capture",
        "Under DDP or FSDP2, after `all_reduce(flow)`: the contributions are summed over all ranks.",
        "Nothing.",
    ),
    Entry(
        "merged",
        "note",
        "capture",
        "The recordings of several ranks were merged; it says which parameters were summed, and which stand "
        "rank by rank.",
        '`keep="tensors"` on every rank, or `all_reduce(flow)`, where sums are wanted.',
    ),
    Entry(
        "ranks-differ",
        "warning",
        "capture",
        "The weights of merged ranks moved differently, so that they are replicas no more.",
        "Begin alike on all ranks, and let DDP or FSDP2 wrap all that trains.",
    ),
    Entry(
        "comm-hook",
        "note",
        "capture",
        "DDP sends gradients through a communication hook; what that changes is part of `other ranks`.",
        "Nothing, where the hook is meant.",
    ),
    Entry(
        "unchecked",
        "note",
        "capture",
        "The model could not be looked at as `gradflow.check` does; what was recorded is as exact as ever.",
        "`gradflow.check(model, optimizer)` shows where it fails.",
    ),
    Entry(
        "incomplete",
        "warning",
        "capture",
        "Recording a step failed in part; training was not disturbed.",
        "Report it, with the text that stands beside it.",
    ),
    Entry(
        "branch-absent",
        "either",
        "step",
        "No gradient arrived along a branch: anywhere (a warning), or at some parameters (a note). Over a "
        "run: in every step, or in some.",
        "Look for `detach()`, `no_grad()`, or an output that the loss does not use. A stop-gradient is so "
        "on purpose.",
    ),
    Entry(
        "branch-zero",
        "either",
        "step",
        "A branch arrived with exact zeros everywhere, as a hinge whose margin is met sends them. Over a "
        "run a warning if in half of the steps or more. With `branch.rows` for each triplet, the part of "
        "the branches that are zero is the part of dead triplets.",
        "Harder examples or a larger margin.",
    ),
    Entry(
        "dead-hinge",
        "either",
        "run",
        "The mean fraction of dead examples, as logged: a note from a half, a warning from 95 %. A "
        "recording knows it only from `flow.log(dead=...)` or `flow.log(active=...)`.",
        "Harder examples or a larger margin; or training is done.",
    ),
    Entry(
        "term-zero",
        "note",
        "step",
        "A term of the loss, named with `branch.term`, sent exact zeros along every branch.",
        "Look for a hinge whose margin is met, or a factor of 0.",
    ),
    Entry(
        "collapse",
        "warning",
        "run",
        "The loss stayed within 1 % of its logged margin for 20 steps, as when all embeddings are one point"
        " (or nothing is learned yet). Needs `flow.log(loss=loss, margin=margin)`.",
        "Look at the spread of the embeddings; a smaller learning rate, semi-hard negatives.",
    ),
    Entry(
        "loss-stuck",
        "note",
        "run",
        "The logged loss changed by less than 0.1 % in 20 steps while the weights moved, and no margin was "
        "logged.",
        "Log the margin, to be told whether it is that.",
    ),
    Entry(
        "nonfinite",
        "either",
        "step",
        "NaN or Inf arrived: along which branches, how far from the loss, and since which step. A note in "
        "steps that a `GradScaler` skipped.",
        "Look behind the parameter that is named; `torch.autograd.set_detect_anomaly(True)`.",
    ),
    Entry(
        "skipped",
        "either",
        "step",
        "The optimizer did not move, as when a `GradScaler` skips an overflow. Over a run a warning if in "
        "most steps.",
        "A few at the start are normal.",
    ),
    Entry(
        "accumulated",
        "warning",
        "run",
        "What the optimizer read beside the new gradient has, at every parameter, the norm of what it read "
        "a step before: `zero_grad()` was forgotten.",
        "`optimizer.zero_grad()` once for each `optimizer.step()`.",
    ),
    Entry(
        "edited",
        "warning",
        "step",
        "The optimizer read another gradient than the backward brought, and no multiple of it.",
        "Left over, clipped by value, or changed by hand; the contributor `edited` shows it.",
    ),
    Entry(
        "not-moved",
        "warning",
        "run",
        "Parameters got gradients in several steps and no watched optimizer ever moved them.",
        "Add them, or watch with every optimizer.",
    ),
    Entry(
        "unclaimed",
        "either",
        "step",
        "Gradient of no branch arrived; a warning from 5 % of the total's norm.",
        "A penalty on the weights is so. " + _NAME,
    ),
    Entry(
        "shared",
        "note",
        "step",
        "Parameters lie behind something that several branches read, and only the sum is known there.",
        '`gradflow.watch(..., stems="split")`.',
    ),
    Entry(
        "rounding",
        "warning",
        "step",
        "What several branches share was split, and more was left than rounding explains (5 % of the "
        "effort).",
        "Something reads the inside of what is shared. " + _NAME,
    ),
    Entry(
        "history",
        "note",
        "step",
        "Momentum from before watching began still moves the weights.",
        "It fades; begin to watch with the training.",
    ),
    Entry(
        "residual",
        "either",
        "step",
        "The arrivals do not add up bitwise to what a weight received; a warning from 1e-5 of its largest "
        "entry.",
        "Report it with the model's code.",
    ),
    Entry(
        "noise",
        "note",
        "step",
        "Parameters receive less than 1e-5 of the step's largest contribution: rounding, as a bias before a"
        " batch-norm does. Their angles mean nothing.",
        "`bias=False`; for a weight, look for what starves it.",
    ),
    Entry(
        "conflict",
        "note",
        "step",
        "Two branches pull against each other at a parameter: the strongest, from a cosine of −0.5.",
        "A positive and a negative do so; two tasks pay for it.",
    ),
    Entry(
        "conflict-lasting",
        "note",
        "run",
        "Two branches pull against each other over the whole model in half of the steps or more.",
        "Weigh the tasks, or give each some weights of its own.",
    ),
    Entry(
        "cancellation",
        "note",
        "step",
        "Half or more of what the branches bring to a parameter cancels in the sum: the strongest.",
        "What cancels moves nothing.",
    ),
    Entry(
        "cancellation-lasting",
        "note",
        "run",
        "Half or more cancels over the whole model, in half of the steps or more.",
        "`gradflow.plot.contributions(step)` shows where.",
    ),
    Entry(
        "dominating",
        "note",
        "run",
        "One branch brings 90 % or more of the effort (the norms of all branches together) in the median "
        "step.",
        "Weigh the losses.",
    ),
    Entry(
        "nothing-shared",
        "note",
        "run",
        "Several branches arrive, and no parameter is reached by two of them.",
        _SHARE,
    ),
)
"""All findings, in the order in which the page tells of them."""
