"""What learners hand in instead: source that defines ``answer``, and words that the verdict must have."""

RULE = "def answer(gram):\n    return [b for b in range(len(gram)) if {condition}]"

ANSWERS = {
    "06.losers": [
        (RULE.format(condition="gram[b].min() < 0"), "A conflict with one other path is not yet a loss"),
        ("def answer(gram):\n    return [int(gram.diagonal().argmin())]", "A quiet path may go along"),
        (
            "def answer(gram):\n    n = gram.diagonal() ** 0.5\n    c = gram / n / n[:, None]\n"
            "    return [b for b in range(len(c)) if c[b].sum() < 0]",
            "Cosines forget the lengths",
        ),
        (RULE.format(condition="gram[b].sum() - gram[b, b] < 0"), "the entry on the diagonal"),
        (RULE.format(condition="gram[b].sum() > 0"), "The sign is the other way"),
        (RULE.format(condition="b == 0"), "The change of a loss is"),
        ("def answer(gram):\n    return []", "you named rows []"),
        ("def answer(gram):\n    return gram[b]", "NameError"),
        ("answer = [0]", "not a function"),
    ]
}
