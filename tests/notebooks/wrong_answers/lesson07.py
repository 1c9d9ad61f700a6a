"""What learners hand in instead: source that defines ``answer``, and words that the verdict must have."""

MODULE = """
import copy
class Wrong(torch.nn.Module):
    def __init__(self, lstm):
        super().__init__()
        self.cell = torch.nn.LSTMCell(lstm.input_size, lstm.hidden_size)
        own = {{name.removesuffix("_l0"): value for name, value in lstm.state_dict().items()}}
        self.cell.load_state_dict(own)
        {init}
    def forward(self, sequences):
        h = c = sequences.new_zeros(len(sequences), self.cell.hidden_size)
        for t, row in enumerate(sequences.unbind(dim=1)):
            {step}
        return {result}
answer = Wrong
"""


def module(init="pass", step="h, c = self.cell(row, (h, c))", result="h"):
    return MODULE.format(init=init, step=step, result=result)


FRESH = "self.cell = torch.nn.LSTMCell(lstm.input_size, lstm.hidden_size)"
NO_BIAS = "torch.nn.init.zeros_(self.cell.bias_ih); torch.nn.init.zeros_(self.cell.bias_hh)"
COPIES = "self.cells = torch.nn.ModuleList([copy.deepcopy(self.cell) for _ in range(28)])"
WHOLE = """
class Wrong(torch.nn.Module):
    def __init__(self, lstm):
        super().__init__()
        self.lstm = lstm
    def forward(self, sequences):
        return self.lstm(sequences)[0][:, -1]
answer = Wrong
"""

ANSWERS = {
    "07.unrolled": [
        (module(init=FRESH), "fresh random weights"),
        (module(init=NO_BIAS), "two weights and two biases"),
        (
            module(init=COPIES, step="h, c = self.cells[t](row, (h, c))"),
            "A copy for each step is not an LSTM",
        ),
        (WHOLE, "still called as a whole"),
        (module(step="h, c = self.cell(row, (h.detach(), c.detach()))"), "cut"),
        (module(step="h, c = self.cell(row, (h.detach(), c))"), "another gradient"),
        (module(result="c"), "apart"),
        (module(result="[h]"), "forward gave list"),
        ("answer = torch.nn.LSTMCell(28, 16)", "Hand in what makes it"),
        ("def answer(lstm):\n    return 1", "should give an nn.Module"),
    ]
}
