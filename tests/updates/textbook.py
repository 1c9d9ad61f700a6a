"""What each contributor's part should be: the formulas of torch's documentation, in numpy and float64.

Shares no code with the rules, nor their way of computing: a momentum is written out here as the weighted sum
over all past steps, not carried in a buffer, and the whole run is computed from the gradients alone.

Each function yields, step by step, ``{contributor: part of the delta}``. ``brought`` holds what each
contributor brought, one dict per step.
"""

import numpy as np


def _signed(given, maximize):
    return {name: -g if maximize else g for name, g in given.items()}


def _names(past):
    return list(dict.fromkeys(name for gradients in past for name in gradients))


def _weighted(past, name, weight):
    """Sum weight(t, s) * (what a contributor brought in step s) over the steps s = 1 .. t."""
    t = len(past)
    return sum(weight(t, s) * gradients[name] for s, gradients in enumerate(past, 1) if name in gradients)


def _with_penalty(gradients, rate, theta):
    return gradients | ({"decay": rate * theta} if rate else {})


def sgd(theta, brought, *, lr, momentum, dampening, nesterov, weight_decay, maximize):
    past = []
    for given in brought:
        g = _with_penalty(_signed(given, maximize), weight_decay, theta)
        past.append(g)

        def weight(t, s):
            return momentum ** (t - s) * (1 if s == 1 else 1 - dampening)

        parts = {}
        for name in _names(past) if momentum else g:
            now = g.get(name, 0.0)
            if momentum:
                buffer = _weighted(past, name, weight)
                now = now + momentum * buffer if nesterov else buffer
            parts[name] = -lr * now
        theta = theta + sum(parts.values())
        yield parts


def adam(theta, brought, *, lr, betas, eps, weight_decay, amsgrad, maximize, decoupled_weight_decay):
    (b1, b2), past = betas, []
    v = largest = np.zeros_like(theta)
    for t, given in enumerate(brought, 1):
        g = _with_penalty(_signed(given, maximize), 0 if decoupled_weight_decay else weight_decay, theta)
        past.append(g)
        v = b2 * v + (1 - b2) * sum(g.values()) ** 2
        largest = np.maximum(largest, v)
        second = (largest if amsgrad else v) / (1 - b2**t)
        parts = {}
        for name in _names(past):
            first = _weighted(past, name, lambda t, s: (1 - b1) * b1 ** (t - s)) / (1 - b1**t)
            parts[name] = -lr * first / (np.sqrt(second) + eps)
        if decoupled_weight_decay and weight_decay:
            parts["decay"] = -lr * weight_decay * theta
        theta = theta + sum(parts.values())
        yield parts


def adamw(theta, brought, **options):
    return adam(theta, brought, eps=1e-8, decoupled_weight_decay=True, **options)


def rmsprop(theta, brought, *, lr, alpha, eps, weight_decay, momentum, centered, maximize):
    past, v, mean = [], np.zeros_like(theta), np.zeros_like(theta)
    for given in brought:
        g = _with_penalty(_signed(given, maximize), weight_decay, theta)
        total = sum(g.values())
        v, mean = alpha * v + (1 - alpha) * total**2, alpha * mean + (1 - alpha) * total
        root = np.sqrt(v - mean**2 if centered else v) + eps
        past.append({name: x / root for name, x in g.items()})
        parts = {}
        for name in _names(past) if momentum else g:
            parts[name] = -lr * _weighted(past, name, lambda t, s: momentum ** (t - s))
        theta = theta + sum(parts.values())
        yield parts


def adagrad(theta, brought, *, lr, lr_decay, weight_decay, initial_accumulator_value, eps, maximize):
    squares = np.full_like(theta, initial_accumulator_value)
    for t, given in enumerate(brought, 1):
        g = _with_penalty(_signed(given, maximize), weight_decay, theta)
        squares = squares + sum(g.values()) ** 2
        rate = lr / (1 + (t - 1) * lr_decay)
        parts = {name: -rate * x / (np.sqrt(squares) + eps) for name, x in g.items()}
        theta = theta + sum(parts.values())
        yield parts


def adadelta(theta, brought, *, lr, rho, eps, weight_decay, maximize):
    v, u = np.zeros_like(theta), np.zeros_like(theta)
    for given in brought:
        g = _with_penalty(_signed(given, maximize), weight_decay, theta)
        v = rho * v + (1 - rho) * sum(g.values()) ** 2
        moves = {name: np.sqrt(u + eps) / np.sqrt(v + eps) * x for name, x in g.items()}
        u = rho * u + (1 - rho) * sum(moves.values()) ** 2
        parts = {name: -lr * move for name, move in moves.items()}
        theta = theta + sum(parts.values())
        yield parts


def adamax(theta, brought, *, lr, betas, eps, weight_decay, maximize):
    (b1, b2), past, u = betas, [], np.zeros_like(theta)
    for t, given in enumerate(brought, 1):
        g = _with_penalty(_signed(given, maximize), weight_decay, theta)
        past.append(g)
        u = np.maximum(b2 * u, np.abs(sum(g.values())) + eps)
        parts = {}
        for name in _names(past):
            m = _weighted(past, name, lambda t, s: (1 - b1) * b1 ** (t - s))
            parts[name] = -lr * m / ((1 - b1**t) * u)
        theta = theta + sum(parts.values())
        yield parts


def nadam(
    theta, brought, *, lr, betas, eps=1e-8, weight_decay, momentum_decay, decoupled_weight_decay, maximize
):
    (b1, b2), past, v = betas, [], np.zeros_like(theta)

    def mu(i):
        return b1 * (1 - 0.5 * 0.96 ** (i * momentum_decay))

    for t, given in enumerate(brought, 1):
        g = _with_penalty(_signed(given, maximize), 0 if decoupled_weight_decay else weight_decay, theta)
        past.append(g)
        v = b2 * v + (1 - b2) * sum(g.values()) ** 2
        root = np.sqrt(v / (1 - b2**t)) + 1e-8
        until_now = np.prod([mu(i) for i in range(1, t + 1)])
        parts = {}
        for name in _names(past):
            m = _weighted(past, name, lambda t, s: (1 - b1) * b1 ** (t - s))
            ahead = mu(t + 1) * m / (1 - until_now * mu(t + 1))
            parts[name] = -lr * (ahead + (1 - mu(t)) * g.get(name, 0.0) / (1 - until_now)) / root
        if decoupled_weight_decay and weight_decay:
            parts["decay"] = -lr * weight_decay * theta
        theta = theta + sum(parts.values())
        yield parts


def radam(theta, brought, *, lr, betas, eps, weight_decay, decoupled_weight_decay, maximize):
    (b1, b2), past, v = betas, [], np.zeros_like(theta)
    most = 2 / (1 - b2) - 1
    for t, given in enumerate(brought, 1):
        g = _with_penalty(_signed(given, maximize), 0 if decoupled_weight_decay else weight_decay, theta)
        past.append(g)
        v = b2 * v + (1 - b2) * sum(g.values()) ** 2
        rho = most - 2 * t * b2**t / (1 - b2**t)
        scale = 1.0
        if rho > 5:
            r = np.sqrt((rho - 4) * (rho - 2) * most / ((most - 4) * (most - 2) * rho))
            scale = r * np.sqrt(1 - b2**t) / (np.sqrt(v) + eps)
        parts = {}
        for name in _names(past):
            m = _weighted(past, name, lambda t, s: (1 - b1) * b1 ** (t - s)) / (1 - b1**t)
            parts[name] = -lr * m * scale
        if decoupled_weight_decay and weight_decay:
            parts["decay"] = -lr * weight_decay * theta
        theta = theta + sum(parts.values())
        yield parts


def asgd(theta, brought, *, lr, lambd, alpha, t0, weight_decay, maximize):
    del t0  # it governs the averages alone
    eta = lr
    for t, given in enumerate(brought, 1):
        g = _with_penalty(_signed(given, maximize), weight_decay, theta)
        parts = {name: -eta * x for name, x in g.items()}
        if lambd:
            parts["decay"] = parts.get("decay", 0.0) - eta * lambd * theta
        theta = theta + sum(parts.values())
        eta = lr / (1 + lambd * lr * t) ** alpha
        yield parts


def adafactor(theta, brought, *, lr, beta2_decay, eps, d, weight_decay, maximize):
    def rms(x):
        return np.sqrt(np.mean(x**2))

    least, least_size = eps
    least = np.finfo(np.float64).eps if least is None else least
    rows = columns = v = 0.0
    for t, given in enumerate(brought, 1):
        g = _signed(given, maximize)
        total, beta2 = sum(g.values()), 1 - t**beta2_decay
        if theta.ndim > 1:
            rows = beta2 * rows + (1 - beta2) * (total**2).mean(axis=-1, keepdims=True)
            columns = beta2 * columns + (1 - beta2) * (total**2).mean(axis=-2, keepdims=True)
            v = rows @ columns / np.maximum(rows.mean(axis=-2, keepdims=True), least)
        else:
            v = beta2 * v + (1 - beta2) * total**2
        root = np.maximum(np.sqrt(v), least)
        size = max(least_size, rms(theta)) * min(lr, 1 / np.sqrt(t))
        clipping = max(1.0, rms(total / root) / d)
        parts = {name: -size * x / root / clipping for name, x in g.items()}
        if weight_decay:
            parts["decay"] = -lr * weight_decay * theta
        theta = theta + sum(parts.values())
        yield parts


def muon(theta, brought, *, lr, weight_decay, momentum, nesterov, adjust_lr_fn, ns_steps):
    """In exact arithmetic: what the real optimizer does in bfloat16."""
    past, (a, b, c) = [], (3.4445, -4.7750, 2.0315)
    rows, columns = theta.shape
    rate = lr * np.sqrt(max(1, rows / columns))
    if adjust_lr_fn == "match_rms_adamw":
        rate = lr * 0.2 * np.sqrt(max(rows, columns))
    for given in brought:
        past.append(given)
        updates = {}
        for name in _names(past):
            buffer = _weighted(past, name, lambda t, s: (1 - momentum) * momentum ** (t - s))
            ahead = (1 - momentum) * given.get(name, 0.0) + momentum * buffer
            updates[name] = ahead if nesterov else buffer
        whole = sum(updates.values())
        x = (whole.T if rows > columns else whole) / max(np.linalg.norm(whole), 1e-7)
        left = np.eye(len(x)) / max(np.linalg.norm(whole), 1e-7)
        for _ in range(ns_steps):
            gram = x @ x.T
            factor = a * np.eye(len(x)) + b * gram + c * gram @ gram
            x, left = factor @ x, factor @ left
        parts = {
            name: -rate * ((left @ u.T).T if rows > columns else left @ u) for name, u in updates.items()
        }
        if weight_decay:
            parts["decay"] = -lr * weight_decay * theta
        theta = theta + sum(parts.values())
        yield parts


def sparse_adam(theta, brought, touched, *, lr, betas, eps, maximize):
    """Adam on the rows that the gradient names; ``touched`` lists those of each step."""
    (b1, b2), past, v = betas, [], np.zeros_like(theta)
    for t, (given, rows) in enumerate(zip(brought, touched, strict=True), 1):
        here = np.isin(np.arange(len(theta)), rows)[:, None]
        past.append((_signed(given, maximize), here))
        total = sum(past[-1][0].values())
        v = np.where(here, b2 * v + (1 - b2) * total**2, v)
        parts = {}
        for name in _names([gradients for gradients, _ in past]):
            m = np.zeros_like(theta)
            for gradients, rows_then in past:
                m = np.where(rows_then, b1 * m + (1 - b1) * gradients.get(name, 0.0), m)
            step = -lr * np.sqrt(1 - b2**t) / (1 - b1**t) * m / (np.sqrt(v) + eps)
            parts[name] = np.where(here, step, 0.0)
        theta = theta + sum(parts.values())
        yield parts
