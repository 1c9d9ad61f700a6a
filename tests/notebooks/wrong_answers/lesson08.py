"""What learners hand in instead: source that defines ``answer``, and words that the verdict must have."""

ADAM = """
def answer(history, lr=0.1, beta1=0.9, beta2=0.999, eps=1e-8):
    v, own = 0, dict.fromkeys(history[0], 0)
    for t, step in enumerate(history, start=1):
        v = beta2 * v + (1 - beta2) * sum(step.values()) ** 2
        own = {{name: beta1 * own[name] + (1 - beta1) * step[name] for name in own}}
    {given}
"""


def adam(given):
    return ADAM.format(given=given)


ALONE = """
def answer(history, lr=0.1, beta1=0.9, beta2=0.999, eps=1e-8):
    given = {}
    for name in history[0]:
        m = v = 0
        for t, step in enumerate(history, start=1):
            m = beta1 * m + (1 - beta1) * step[name]
            v = beta2 * v + (1 - beta2) * step[name] ** 2
        given[name] = -lr * m / (1 - beta1**t) / ((v / (1 - beta2**t)) ** 0.5 + eps)
    return given
"""

SCALE = "lr / (1 - beta1**t) / ((v / (1 - beta2**t)) ** 0.5 + eps)"

ANSWERS = {
    "08.parts": [
        (ALONE, "an Adam for each path"),
        (
            adam("return {b: -lr * g / ((v / (1 - beta2**t)) ** 0.5 + eps) for b, g in history[-1].items()}"),
            "this step's gradients only",
        ),
        (adam("return {b: -lr * m / (v ** 0.5 + eps) for b, m in own.items()}"), "start at zero"),
        (adam(f"return {{b: {SCALE} * m for b, m in own.items()}}"), "The sign"),
        (adam(f"return {{b: -{SCALE} * sum(own.values()) / 3 for b in own}}"), "Equal parts"),
        (
            adam(
                "size = {b: (g ** 2).sum() ** 0.5 for b, g in history[-1].items()}\n"
                f"    return {{b: -{SCALE} * sum(own.values()) * size[b] / sum(size.values()) for b in own}}"
            ),
            "today's gradients",
        ),
        (adam("return {b: -lr * m for b, m in own.items()}"), "one denominator for all"),
        (adam("return -lr * v"), "did not give a dict"),
        ("answer = 3", "not a function"),
    ]
}
