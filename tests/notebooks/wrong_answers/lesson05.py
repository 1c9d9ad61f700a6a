"""What learners hand in instead: source that defines ``answer``, and words that the verdict must have."""

MINER = "def answer(d_ap, d_an, margin):\n    return "

ANSWERS = {
    "05.semi_hard": [
        (MINER + "d_an.argmin(dim=1)", "nearer than the positive"),
        (MINER + "d_an.argmax(dim=1)", "dead"),
        (MINER + "torch.where(d_an > d_ap[:, None], d_an, -torch.inf).argmax(dim=1)", "dead"),
        (MINER + "torch.where(d_an < d_ap[:, None] + margin, d_an, torch.inf).argmin(dim=1)", "semi-hard"),
        (MINER + "torch.where(d_an > d_ap[:, None], d_an, torch.inf).min(dim=1).values", "shape [40]"),
        (MINER + "(d_an > d_ap[:, None]) & (d_an < d_ap[:, None] + margin)", "torch.bool"),
        (MINER + "torch.zeros(len(d_ap), dtype=torch.int64)", "of 40"),
    ]
}
