"""Exercise of lesson 5: choose negatives that teach something."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gradflow.lessons.exercise import Exercise, Verdict, right, wrong

__all__ = ["EXERCISES"]

_MARGIN = 0.2


def _distances() -> tuple[Tensor, Tensor]:
    """Of 40 anchors to their positives, and to 12 negatives each: nearer, in the margin, and beyond it."""
    generator = torch.Generator().manual_seed(5)
    d_ap = 0.5 + 0.6 * torch.rand(40, generator=generator)
    share = torch.rand(40, 3, 4, generator=generator)
    nearer = d_ap[:, None] * (0.2 + 0.7 * share[:, 0])
    within = d_ap[:, None] + _MARGIN * (0.1 + 0.8 * share[:, 1])
    beyond = d_ap[:, None] + _MARGIN * (1.2 + 3 * share[:, 2])
    d_an = torch.cat([nearer, within, beyond], dim=1)
    return d_ap, d_an.gather(1, torch.rand(40, 12, generator=generator).argsort(dim=1))


def _examine(answer: Any) -> Verdict:  # Any: a learner may hand in anything
    d_ap, d_an = _distances()
    chosen = torch.as_tensor(answer(d_ap.clone(), d_an.clone(), _MARGIN))
    if chosen.dtype.is_floating_point or chosen.dtype == torch.bool or chosen.shape != d_ap.shape:
        return wrong(
            f"It gave {chosen.dtype} of shape {list(chosen.shape)}.",
            "Give for each of the 40 anchors the number of one negative: int64, shape [40].",
        )
    got = d_an.gather(1, chosen[:, None])[:, 0]
    hard, dead = int((got <= d_ap).sum()), int((got >= d_ap + _MARGIN).sum())
    if not hard and not dead:
        return right("All 40 negatives are farther than the positive, and all of them still teach.")
    if dead > hard:
        return wrong(
            f"{dead} of 40 triplets are dead: their negatives are beyond the margin.",
            "Far negatives are satisfied already. Only those nearer than d_ap + margin give a gradient.",
        )
    return wrong(
        f"{hard} of 40 negatives are nearer than the positive.",
        "These are hard, not semi-hard. They teach, too, but mislabelled images are among them, and early in "
        "training they can lead to collapse (Schroff et al. 2015). Ask for d_an > d_ap.",
    )


EXERCISES = (
    Exercise(
        "05.semi_hard",
        "Write semi_hard(d_ap, d_an, margin): for each anchor the index of a negative that is farther than "
        "the positive, but by less than the margin.",
        _examine,
        (
            "For one anchor: which numbers in its row of d_an exceed its d_ap, and by less than margin?",
            "d_ap[:, None] has shape [B, 1], so that it compares with every negative of its row.",
            "Set all distances that do not fit to infinity (torch.where), and take argmin(dim=1).",
        ),
    ),
)
