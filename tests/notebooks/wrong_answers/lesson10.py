"""What learners hand in instead: source that defines ``answer``, and words that the verdict must have."""

STEP = """
import copy
def answer(encoder, optimizer, images):
    a, p, n = images
    {before}
    loss = F.triplet_margin_loss({outputs})
    {clear}
    loss.backward()
    {step}
"""


def step(
    outputs="encoder(a), encoder(p), encoder(n)",
    *,
    before="pass",
    clear="optimizer.zero_grad()",
    step="optimizer.step()",
):
    return STEP.format(outputs=outputs, before=before, clear=clear, step=step)


COPY = "other = copy.deepcopy(encoder)"

ANSWERS = {
    "10.mended": [
        (step("encoder(a), encoder(p), other(n)", before=COPY), "went into a copy"),
        (step("encoder(a), encoder(p).detach(), encoder(n)"), "brings nothing"),
        (step(clear="pass"), "still in .grad"),
        (step("encoder(a), encoder(p).detach(), other(n)", before=COPY, clear="pass"), "brings nothing"),
        (step("encoder(n), encoder(p), encoder(a)"), "which image is anchor"),
        (step("other(a), other(p), other(n)", before=COPY), "No path came back"),
        (step(step="pass"), "made 0 steps"),
        (step("encoder(a).detach(), encoder(p).detach(), encoder(n).detach()"), "RuntimeError"),
        ("answer = 10", "not a function"),
    ]
}
