"""On an accelerator: the same laws, and not one moment of waiting for it."""

import pytest
import torch

from tests.updates.cases import FAMILIES
from tests.updates.training import Training, assert_conserved, contributions, parameters

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator"),
]

CAPTURABLE = ("Adam", "AdamW", "Adamax", "NAdam", "RAdam", "RMSprop", "Adadelta", "ASGD")
FUSED = ("SGD", "Adam", "AdamW", "Adagrad")


def ways():
    for family in FAMILIES:
        yield family, {}
        if "way" in family.options:
            yield family, {"foreach": False}
        if family.name in CAPTURABLE:
            yield family, {"capturable": True, "foreach": False}
            yield family, {"capturable": True, "foreach": True}
        if family.name in FUSED:
            yield family, {"fused": True}


def named(value):
    return value.name if hasattr(value, "name") else "-".join(value) or "default"


def on_device(step, param, *, number=0):
    host = torch.empty(param.shape, dtype=param.dtype)
    return {n: g.to(param.device) for n, g in contributions(step, host, number=number).items()}


class Watchful(Training):
    """Fails where the splitter would wait for the device."""

    def advance(self, *, watched=True):
        every = self.brought()
        with torch.no_grad():
            thetas = {param: param.detach().clone() for param in every}
            self._quietly(lambda: [self.splitter.before(p, parts) for p, parts in every.items()])
            self.optimizer.step()
            splits = self._quietly(lambda: [self.splitter.after(p, thetas[p]) for p in every])
        self.step += 1
        return splits

    def _quietly(self, work):
        torch.cuda.set_sync_debug_mode("error")
        try:
            return work()
        finally:
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize(("family", "options"), list(ways()), ids=named)
def test_the_laws_hold_on_the_device(family, options):
    params = [torch.nn.Parameter(p.detach().cuda()) for p in parameters(shapes=family.shapes)]
    optimizer = family.optimizer(params, lr=family.lr, **options)
    assert_conserved(Training(optimizer, bring=on_device).run(50), rule=family.name)


@pytest.mark.parametrize(("family", "options"), list(ways()), ids=named)
def test_nothing_waits_for_the_device(family, options):
    params = [torch.nn.Parameter(p.detach().cuda()) for p in parameters(shapes=family.shapes)]
    optimizer = family.optimizer(params, lr=family.lr, **options)
    steps = Watchful(optimizer, bring=on_device).run(3)
    assert all(split.rule == family.name for step in steps for split in step)
