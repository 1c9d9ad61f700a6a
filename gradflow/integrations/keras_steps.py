"""A Keras optimizer as gradflow's capture sees it: parameters, state, and hooks around its steps.

Keras optimizers have no hooks, so ``apply`` is wrapped on the one optimizer object for as long as it is
watched. What their steps make of the gradients is written down here as rules, after the source of Keras 3.15.
Where Keras itself changes a gradient or a weight around the step (clipping, accumulation, constraints), the
delta is shown whole, and says why.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gradflow.updates.frozen import Accumulate, Factor, Frozen, Stepped
from gradflow.updates.rules import register

__all__ = ["SGD", "Adam", "KerasSteps", "RMSprop", "steps_of"]

KerasOptimizer = Any  # a keras.optimizers.Optimizer; keras has no types
Variable = Any  # a keras.Variable

_HOME = "keras.src.backend.torch.optimizers"
_AROUND_THE_STEP = (
    "clipnorm",
    "global_clipnorm",
    "clipvalue",
    "gradient_accumulation_steps",
    "loss_scale_factor",
    "use_ema",
)


class KerasSteps(torch.optim.Optimizer):
    """The steps of one Keras optimizer; without a rule for its class, its deltas are shown whole.

    Args:
        keras_optimizer: The optimizer.
        params: The parameters it may move.

    Attributes:
        options: Names of its options that the rule reads.
        moments: Its lists that hold a tensor for each variable, by what the rule calls them.
    """

    options: tuple[str, ...] = ()
    moments: tuple[tuple[str, str], ...] = ()

    def __init__(self, keras_optimizer: KerasOptimizer, params: Sequence[nn.Parameter]) -> None:
        super().__init__(list({id(p): p for p in params}.values()), {})
        self._keras = keras_optimizer
        self._apply: Callable[[], object] | None = None
        self._variables: list[Variable] = []
        self._is_new = True
        self._wrapped: object = None

    def attach(self) -> None:
        """Have the hooks called around the optimizer's ``apply``."""
        inner, mine = self._keras.apply, self._attributes()
        self._wrapped = mine.get("apply")

        def apply(grads: Any, trainable_variables: Any = None) -> object:  # as Keras takes them
            gradients, variables = list(grads), trainable_variables
            if variables is not None:
                variables = list(variables)
            self._apply = lambda: inner(gradients, variables)
            self._guarded(lambda: self._prepare(variables or self._keras._trainable_variables, gradients))
            return self.step()

        mine["apply"] = apply  # past Keras's tracking of attributes

    def detach(self) -> None:
        """Leave the optimizer as it was."""
        mine = self._attributes()
        mine.pop("apply", None)
        if self._wrapped is not None:
            mine["apply"] = self._wrapped

    def step(self, closure: Callable[[], float] | None = None) -> Any:  # what Keras gives
        """Let Keras apply the gradients, between the hooks that torch calls."""
        assert self._apply is not None, "only apply() steps"
        result, self._apply = self._apply(), None
        self._guarded(self._take_moments)
        return result

    def _guarded(self, act: Callable[[], None]) -> None:
        """Do something of ours inside the user's step, which it must not stop."""
        try:
            act()
        except Exception as error:
            for param in self.param_groups[0]["params"]:
                self.state[param]["why"] = (
                    f"gradflow could not read the step: {type(error).__name__}: {error}"
                )

    def _attributes(self) -> dict[str, Any]:  # of any type
        mine: dict[str, Any] = self._keras.__dict__
        return mine

    def _prepare(self, variables: Sequence[Variable], gradients: Sequence[Tensor | None]) -> None:
        """Write down what the rule will read, as it is before the step."""
        self._variables = [v for v in variables if id(v._value) in self._known()]
        self.param_groups[0].update({name: getattr(self._keras, name) for name in self.options})
        if self._is_new:  # the moments of an optimizer that has not stepped are zeros of nobody's
            self._is_new = not self._keras.built or int(self._keras.iterations) == 0
        if not self._is_new:
            self._take_moments()
        rate, why = _rate(self._keras), self._why()
        given = {id(v): g for v, g in zip(variables, gradients, strict=False)}
        for variable in self._variables:
            self.state[variable._value].update(
                rate=rate,
                why=why or _why(variable, given[id(variable)]),
                decay=self._decay(variable),
            )
        self._is_new = False

    def _known(self) -> set[int]:
        return {id(p) for p in self.param_groups[0]["params"]}

    def _take_moments(self) -> None:
        for name, attribute in self.moments:
            tensors = getattr(self._keras, attribute, None) or ()
            for variable in self._variables if tensors else ():
                moment = tensors[self._keras._get_variable_index(variable)]
                self.state[variable._value][name] = moment._value
        count = self._keras.iterations
        for variable in self._variables:
            self.state[variable._value]["count"] = getattr(count, "_value", count)

    def _decay(self, variable: Variable) -> float:
        decays = self._keras.weight_decay and self._keras.built and self._keras._use_weight_decay(variable)
        return float(self._keras.weight_decay) if decays else 0.0

    def _why(self) -> str:
        for name in _AROUND_THE_STEP:
            if getattr(self._keras, name, None):
                return f"Keras's {name} changes gradients or weights around the step"
        return "" if _rate(self._keras) is not None else "its learning rate is a function"


class SGD(KerasSteps):
    """Keras's SGD."""

    options = ("momentum", "nesterov")
    moments = (("momentum", "momentums"),)


class Adam(KerasSteps):
    """Keras's Adam and AdamW."""

    options = ("beta_1", "beta_2", "epsilon", "amsgrad")
    moments = (("momentum", "_momentums"), ("velocity", "_velocities"), ("velocity_hat", "_velocity_hats"))


class RMSprop(KerasSteps):
    """Keras's RMSprop."""

    options = ("rho", "momentum", "epsilon", "centered")
    moments = (("momentum", "_momentums"), ("velocity", "_velocities"), ("average", "_average_gradients"))


@register(SGD, momentum="momentum")
def _sgd(step: Stepped) -> Frozen | str:
    """Write down ``v = mu v - lr g; theta += v`` (Nesterov: ``theta += mu v - lr g``)."""
    if step.state["why"]:
        return str(step.state["why"])
    rate, mu = step.state["rate"], float(step.group["momentum"])
    if mu == 0.0:
        return Frozen(gradient=-rate, theta=_decay(step))
    memory = Accumulate(keep=mu, take=-rate)
    if step.group["nesterov"]:
        return Frozen(gradient=-rate, momentum=mu, memory=memory, theta=_decay(step))
    return Frozen(momentum=1.0, memory=memory, theta=_decay(step))


@register(Adam, momentum="momentum")
def _adam(step: Stepped) -> Frozen | str:
    """Write down ``theta -= lr sqrt(1 - beta2^t) / (1 - beta1^t) * m / (sqrt(v) + eps)``."""
    if step.state["why"]:
        return str(step.state["why"])
    count = step.state["count"].to(step.theta.dtype)  # Keras counts in the precision of the weights
    power1, power2 = (
        torch.as_tensor(step.group[name], dtype=count.dtype, device=count.device) ** count
        for name in ("beta_1", "beta_2")
    )
    size = step.state["rate"] * (1 - power2).sqrt() / (1 - power1)
    second = step.state["velocity_hat" if step.group["amsgrad"] else "velocity"]
    beta = float(step.group["beta_1"])
    return Frozen(
        momentum=-size / (second.sqrt() + step.group["epsilon"]),
        memory=Accumulate(keep=beta, take=1 - beta),
        theta=_decay(step),
    )


@register(RMSprop, momentum="momentum")
def _rmsprop(step: Stepped) -> Frozen | str:
    """Write down ``theta -= lr g / sqrt(v + eps)``; momentum sums such quotients."""
    if step.state["why"]:
        return str(step.state["why"])
    square = step.state["velocity"] + step.group["epsilon"]
    if step.group["centered"]:
        square = square - step.state["average"] ** 2
    factor, mu = step.state["rate"] / square.sqrt(), float(step.group["momentum"])
    if mu == 0.0:
        return Frozen(gradient=-factor, theta=_decay(step))
    return Frozen(momentum=-1.0, memory=Accumulate(keep=mu, take=factor), theta=_decay(step))


def steps_of(keras_optimizer: KerasOptimizer, params: Sequence[nn.Parameter]) -> KerasSteps:
    """Give the steps of a Keras optimizer: with a rule where the class is Keras's own and has one."""
    kind, ruled = type(keras_optimizer), {"SGD": SGD, "Adam": Adam, "AdamW": Adam, "RMSprop": RMSprop}
    if kind.__module__.startswith(_HOME) and kind.__name__ in ruled:
        return ruled[kind.__name__](keras_optimizer, params)
    unruled: type[KerasSteps] = type(kind.__name__, (KerasSteps,), {})  # named as the reader knows it
    return unruled(keras_optimizer, params)


def _rate(keras_optimizer: KerasOptimizer) -> Tensor | None:
    """Give the learning rate of the coming step; None where asking for it could change it."""
    from keras import optimizers

    own = getattr(keras_optimizer, "_learning_rate", None)
    if own is None or (callable(own) and not isinstance(own, optimizers.schedules.LearningRateSchedule)):
        return None
    rate = keras_optimizer.learning_rate
    return torch.as_tensor(getattr(rate, "_value", rate)).detach().clone().reshape(())


def _why(variable: Variable, given: Tensor | None) -> str:
    """Say why the step of one variable cannot be split; empty when it can."""
    if variable.constraint is not None:
        return "a constraint moves the variable after the step"
    own = variable._value.grad
    if given is None or own is None or given is own or given.data_ptr() == own.data_ptr():
        return ""
    return "apply() was given another gradient than .grad holds"


def _decay(step: Stepped) -> Factor:
    """Give what ``theta *= 1 - lr * weight_decay`` adds of theta, rounded as Keras rounds it."""
    rate: float = step.state["decay"]
    return 0.0 if rate == 0.0 else (1 - rate * step.state["rate"]) - 1
