"""What learners hand in instead: source that defines ``answer``, and words that the verdict must have."""

LOOK = """
def answer(network, step):
    before = {{name: {kept} for name, p in network.named_parameters()}}
    step()
    return {{name: {seen} for name, p in network.named_parameters(){which}}}
"""
NORM = "(p - before[name]).norm().item()"
COPY = "p.detach().clone()"


def look(kept=COPY, seen=NORM, which=""):
    return LOOK.format(kept=kept, seen=seen, which=which)


ANSWERS = {
    "03.moved": [
        (look(kept="p"), "yours moves with it"),
        (look(kept="p.detach()"), "yours moves with it"),
        (look(kept="p.data"), "yours moves with it"),
        (look(seen="p.grad.norm().item()"), "norms of the gradients"),
        (
            look(seen="(p.flatten()[0] - before[name].flatten()[0]).item()"),
            "first number of each parameter",
        ),
        (look(which=" if p.dim() == 4"), "Biases move too"),
        (look(seen="(p - before[name]).abs().max().item()"), "it moved by"),
        (look().replace("    step()\n", ""), "Call step() once"),
    ]
}
