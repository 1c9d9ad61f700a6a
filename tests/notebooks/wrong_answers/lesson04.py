"""What learners hand in instead: source that defines ``answer``, and words that the verdict must have."""

RELATION = """
def answer(one, other):
    mine, yours = list(one.parameters()), list(other.parameters())
    same = [p.shape for p in mine] == [p.shape for p in yours]
    if {shared}:
        return "shared"
    return "copied" if {copied} else "different"
"""
MEET = "{id(p) for p in mine} & {id(p) for p in yours}"
EQUAL = "same and all(torch.equal(p, q) for p, q in zip(mine, yours))"


def relation(shared=MEET, copied=EQUAL):
    return RELATION.format(shared=shared, copied=copied)


ANSWERS = {
    "04.relation": [
        (relation(shared="one is other"), "not the modules"),
        (relation(shared=EQUAL), "not the modules"),
        (relation(shared="one is other or " + EQUAL + " or " + MEET), "Equal numbers are not one weight"),
        (relation(copied="same"), "they are different"),
        (
            relation(copied="same and all(torch.allclose(p, q, atol=0.01) for p, q in zip(mine, yours))"),
            "exactly",
        ),
        (relation(copied="all((p == q).all() for p, q in zip(mine, yours))"), "look at them first"),
        (relation().replace('"copied"', '"equal"'), "Give one of"),
    ]
}
