"""Loops written by hand, that `bench_pc_networks.py` measures the package beside."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

RATE, LEARNING_RATE = 0.1, 1e-3

Arrays = list[np.ndarray[Any, Any]]


class NumpyLoop:
    """The loop in numpy: the first prediction once, as few temporaries as is natural."""

    def __init__(self, weights: Arrays, biases: Arrays, dtype: str = "float32") -> None:
        self.w = [w.astype(dtype) for w in weights]
        self.b = [b.astype(dtype) for b in biases]

    def settle(self, x: Any, y: Any, n_steps: int) -> list[Any]:
        first = x @ self.w[0].T + self.b[0]
        z = [first.copy()]
        for w, b in zip(self.w[1:-1], self.b[1:-1], strict=True):
            z.append(np.tanh(z[-1]) @ w.T + b)
        for _ in range(n_steps):
            rates = [np.tanh(state) for state in z]
            errors = [z[0] - first]
            for rate, w, b, above in zip(rates, self.w[1:], self.b[1:], [*z[1:], y], strict=True):
                errors.append(above - (rate @ w.T + b))
            for level, rate in enumerate(rates):
                pulled = errors[level + 1] @ self.w[level + 1]
                pulled *= 1 - rate * rate
                pulled -= errors[level]
                pulled *= RATE
                z[level] += pulled
        return z

    def energy(self, x: Any, y: Any, z: list[Any]) -> float:
        below = [x, *(np.tanh(state) for state in z)]
        errors = [
            above - (r @ w.T + b)
            for r, w, b, above in zip(below, self.w, self.b, [*z, y], strict=True)
        ]
        return float(sum(0.5 * (e.astype(np.float64) ** 2).sum() for e in errors)) / len(x)

    def update(self, x: Any, y: Any, n_steps: int) -> None:
        z = self.settle(x, y, n_steps)
        below = [x, *(np.tanh(state) for state in z)]
        for level, above in enumerate([*z, y]):
            error = above - (below[level] @ self.w[level].T + self.b[level])
            self.w[level] += LEARNING_RATE / len(x) * (error.T @ below[level])
            self.b[level] += LEARNING_RATE / len(x) * error.sum(0)


class TorchLoop:
    """The best loop that we can write by hand in torch: buffers, in place, nothing twice."""

    def __init__(self, weights: Arrays, biases: Arrays, batch: int) -> None:
        self.w = [torch.tensor(w, dtype=torch.float32) for w in weights]
        self.b = [torch.tensor(b, dtype=torch.float32) for b in biases]
        sizes = [w.shape[0] for w in weights]
        self.z, self.rate, self.error, self.pulled, self.prediction = (
            [torch.empty(batch, n) for n in sizes] for _ in range(5)
        )

    @torch.no_grad()
    def settle(self, x: torch.Tensor, y: torch.Tensor, n_steps: int, step: float = RATE) -> None:
        w, b, z, rate, error = self.w, self.b, self.z, self.rate, self.error
        top = len(w) - 1
        first = torch.addmm(b[0], x, w[0].T, out=self.prediction[0])
        z[0].copy_(first)
        for level in range(1, top):
            torch.tanh(z[level - 1], out=rate[level - 1])
            torch.addmm(b[level], rate[level - 1], w[level].T, out=z[level])
        z[top] = y
        for _ in range(n_steps):
            torch.sub(z[0], first, out=error[0])
            for level in range(1, top + 1):
                torch.tanh(z[level - 1], out=rate[level - 1])
                torch.addmm(b[level], rate[level - 1], w[level].T, out=self.prediction[level])
                torch.sub(z[level], self.prediction[level], out=error[level])
            for level in range(top):
                pulled = torch.mm(error[level + 1], w[level + 1], out=self.pulled[level])
                torch.ops.aten.tanh_backward.grad_input(pulled, rate[level], grad_input=pulled)
                z[level].add_(pulled.sub_(error[level]), alpha=step)

    @torch.no_grad()
    def update(self, x: torch.Tensor, y: torch.Tensor, n_steps: int) -> None:
        self.settle(x, y, n_steps)
        rates = [torch.tanh(s, out=r) for s, r in zip(self.z, self.rate, strict=True)]
        below = [x, *rates]
        for level, (w, b) in enumerate(zip(self.w, self.b, strict=True)):
            if level:
                torch.addmm(b, below[level], w.T, out=self.prediction[level])
            torch.sub(self.z[level], self.prediction[level], out=self.error[level])
        for level, (w, b) in enumerate(zip(self.w, self.b, strict=True)):
            w.addmm_(self.error[level].T, below[level], alpha=LEARNING_RATE / len(x))
            b.add_(self.error[level].sum(0), alpha=LEARNING_RATE / len(x))


class AutogradLoop:
    """What a generic torch library does: the whole energy and its gradient at every step."""

    def __init__(self, weights: Arrays, biases: Arrays) -> None:
        self.layers = [nn.Linear(w.shape[1], w.shape[0]) for w in weights]
        for layer, w, b in zip(self.layers, weights, biases, strict=True):
            layer.weight.data, layer.bias.data = torch.tensor(w).float(), torch.tensor(b).float()
        parameters = [p for layer in self.layers for p in layer.parameters()]
        self.optimiser = torch.optim.SGD(parameters, LEARNING_RATE)

    def energy(self, x: torch.Tensor, y: torch.Tensor, z: list[torch.Tensor]) -> torch.Tensor:
        below = [x, *(torch.tanh(state) for state in z)]
        terms = [
            0.5 * (above - layer(r)).square().sum()
            for layer, r, above in zip(self.layers, below, [*z, y], strict=True)
        ]
        return torch.stack(terms).sum()

    def update(self, x: torch.Tensor, y: torch.Tensor, n_steps: int) -> None:
        with torch.no_grad():
            z = [self.layers[0](x)]
            for layer in self.layers[1:-1]:
                z.append(layer(torch.tanh(z[-1])))
        for _ in range(n_steps):
            z = [state.detach().requires_grad_() for state in z]
            slopes = torch.autograd.grad(self.energy(x, y, z), z)
            with torch.no_grad():
                z = [state - RATE * slope for state, slope in zip(z, slopes, strict=True)]
        self.optimiser.zero_grad()
        (self.energy(x, y, [state.detach() for state in z]) / len(x)).backward()
        self.optimiser.step()
        self.z = z
