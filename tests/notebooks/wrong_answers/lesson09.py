"""What learners hand in instead: source that defines ``answer``, and words that the verdict must have."""

LOSS = """
def answer(p1, p2, z1, z2):
    return -(simsiam.similarity({a}, {b}) + simsiam.similarity({c}, {d})) / 2
"""


def loss(a, b, c, d):
    return LOSS.format(a=a, b=b, c=c, d=d)


HALF = "def answer(p1, p2, z1, z2):\n    return -simsiam.similarity({a}, {b}.detach())"
RIGHT = "simsiam.similarity(p1, z2.detach()) + simsiam.similarity(p2, z1.detach())"

ANSWERS = {
    "09.stop": [
        (loss("p1", "z2", "p2", "z1"), "The targets get gradient too"),
        (loss("p1.detach()", "z2", "p2.detach()", "z1"), "You stopped the guess"),
        (loss("p1.detach()", "z2.detach()", "p2.detach()", "z1.detach()"), "You stopped everything"),
        (loss("p1", "z1.detach()", "p2", "z2.detach()"), "Each view guesses itself"),
        (loss("p1", "z2.detach()", "p2.detach()", "z1.detach()"), "One of the guesses gets no gradient"),
        (loss("p1", "z2.detach()", "p2", "z1"), "The targets get gradient too"),
        (HALF.format(a="p1", b="z2"), "Only view 1 guesses"),
        (HALF.format(a="p2", b="z1"), "Only view 2 guesses"),
        (f"def answer(p1, p2, z1, z2):\n    return ({RIGHT}) / 2", "The sign"),
        (f"def answer(p1, p2, z1, z2):\n    return -({RIGHT})", "take the mean"),
        ("def answer(p1, p2, z1, z2):\n    return p1.sum()", "Compare p1 with z2"),
        ("def answer(p1, p2, z1, z2):\n    return p1", "one number"),
        ("answer = 1", "not a function"),
    ]
}
