"""What learners hand in instead: source that defines ``answer``, and words that the verdict must have."""

HEAD = """
def answer(encoder, anchor, positive, negative):
    images = {"anchor": anchor, "positive": positive, "negative": negative}
    def grad(kept):
        z = {n: encoder(x) if n in kept else encoder(x).detach() for n, x in images.items()}
        return torch.autograd.grad(triplet.triplet_loss(**z)[0], encoder.fc.weight)[0]
"""

ANSWERS = {
    "02.split": [
        (HEAD + "    return {n: grad(images) for n in images}", "whole sum"),
        (HEAD + "    return {n: grad(images) / 3 for n in images}", "a third of the sum"),
        (
            HEAD + "    return {n: grad(set(images) - {n}) for n in images}",
            "detached the path that you wanted",
        ),
        (
            HEAD
            + """
    found, before = {}, 0
    for n in images:
        found[n] = before = before + grad({n})
    return found""",
            "adds up over calls",
        ),
        (HEAD + "    return {n: grad({n}).norm() for n in images}", "the shape of its weight"),
        (HEAD + "    return [grad({n}) for n in images]", "Give a dict"),
        (HEAD + "    return {n: -grad({n}) for n in images}", "Off by up to"),
    ]
}
