"""What learners hand in instead: source that defines ``answer``, and words that the verdict must have."""

NETWORK = """
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        {init}
    def forward(self, a, p, n):
        {forward}
answer = Net()
"""


def network(init, forward):
    return NETWORK.format(init=init, forward=forward)


TOWERS = "self.one, self.two, self.three = small_encoder(), small_encoder(), small_encoder()"
COPIES = """self.one = small_encoder()
        import copy
        self.two, self.three = copy.deepcopy(self.one), copy.deepcopy(self.one)"""
ONE = "self.one = small_encoder()"

ANSWERS = {
    "01.shared": [
        (network(TOWERS, "return self.one(a), self.two(p), self.three(n)"), "three answers"),
        (network(COPIES, "return self.one(a), self.two(p), self.three(n)"), "Equal is not the same"),
        (network(ONE, "return self.one(a), self.one(p).detach(), self.one(n).detach()"), "cut a path"),
        (network(ONE, "return self.one(a), self.one(a), self.one(a)"), "an image of its own"),
        (network(ONE, "return self.one(a)"), "not three embeddings"),
        ("answer = small_encoder", "Hand in a network"),
        ("answer = None", "There is no answer yet"),
    ]
}
