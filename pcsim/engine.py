"""Running a wired circuit in time: integrators, recording, rest, and the step that is too large."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import array_api_compat
import numpy as np
from numpy.typing import NDArray

from pcsim.declaration import STIMULUS, Population
from pcsim.kinds.kind import Array
from pcsim.machine import Machine

__all__ = ["INTEGRATORS", "Integration", "as_numpy"]

INTEGRATORS = ("exponential_euler", "euler", "rk4")


class Integration:
    """A machine with a state that moves step by step.

    Parameters
    ----------
    machine
        The wired circuit.
    integrator
        "euler", "exponential_euler" or "rk4". The stimulus and delayed signals are held during a
        step, also between the stages of Runge-Kutta.
    normal
        Returns standard normal numbers of a shape; needed if a population has noise.
    """

    def __init__(
        self,
        machine: Machine,
        integrator: str,
        normal: Callable[[tuple[int, ...]], Array] | None = None,
    ) -> None:
        self.machine, self.dt, self.integrator = machine, machine.dt, integrator
        self.state, self.change = machine.zeros(machine.n_states), machine.zeros(machine.n_states)
        self.views, self._changes = machine.view(self.state), machine.view(self.change)
        self._normal = normal
        self._noisy = [n.population for n in machine.nodes.values() if n.population.noise]
        lags = {w.n_steps for w in machine.wires() if w.projection.source == STIMULUS}
        self._lags = sorted(lags)
        self._evaluated: tuple[int, tuple[int, ...]] = (-1, ())
        self._prepare()

    def _prepare(self) -> None:
        """Lay out what the integrator needs besides the state."""
        machine = self.machine
        kinds = {name: node.population.kind for name, node in machine.nodes.items()}
        if self.integrator == "rk4":
            self._between = machine.zeros(machine.n_states)
            self._slopes = [machine.zeros(machine.n_states) for _ in range(4)]
            self._between_views = machine.view(self._between)
            self._slope_views = [machine.view(slope) for slope in self._slopes]
        if self.integrator == "exponential_euler":
            self._varying = [name for name, kind in kinds.items() if not kind.steady]
            trials = slice(None) if self._varying else slice(1)
            self._factor = machine.zeros(machine.n_states)[..., trials, :]
            self._factors = machine.view(self._factor)
            self._set_factors([name for name, kind in kinds.items() if kind.states and kind.steady])

    def step(self, step: int, *, learn: bool = False) -> None:
        """Move the state from the beginning of `step` to its end, and plastic weights if asked."""
        self.evaluate(step, step)
        self.machine.remember(step)
        if learn:
            self.machine.learn()
        if self.integrator == "rk4":
            self._runge_kutta(step)
        else:
            self._euler()
        for population in self._noisy:
            self._shake(population)
        self._evaluated = (-1, ())

    def evaluate(self, step: int, shown: int) -> None:
        """Evaluate the machine in the present state, unless that was done already."""
        frame_of = self.machine.frame_of
        frames = tuple(frame_of[shown - lag] if shown >= lag else -1 for lag in self._lags)
        if self._evaluated != (step, frames):
            self.machine.evaluate(self.views, step, shown)
            self._evaluated = (step, frames)

    def rates(self, names: Sequence[str], step: int) -> list[Array]:
        """Return the rates at the end of `step`, with the frame still shown that it showed."""
        if any(self.machine.nodes[name].population.kind.direct for name in names):
            self.evaluate(step + 1, step)
        return [self.machine.rate(name, self.views) for name in names]

    def _euler(self) -> None:
        """Euler, or exponential Euler, which is Euler with a step of its own for every state."""
        if self.integrator == "exponential_euler":
            self._set_factors(self._varying)
        exact = self.integrator == "exponential_euler"
        self.machine.drift(self._changes, self._factors if exact else self.dt)
        self.state += self.change

    def _set_factors(self, names: Sequence[str]) -> None:
        """Set (1 - exp(-decay dt)) / decay, which is dt where nothing is known to decay."""
        xp = self.machine.xp
        for name in names:
            for state, decay in self.machine.decay(name).items():
                into = self._factors[name][state]
                into[...] = decay * self.dt
                at_rest = into == 0
                safe = xp.where(at_rest, xp.ones_like(into), into)
                share = xp.where(at_rest, xp.ones_like(into), -xp.expm1(-safe) / safe)
                into[...] = self.dt * share

    def _runge_kutta(self, step: int) -> None:
        self.machine.drift(self._slope_views[0])
        for stage, part in ((1, 0.5), (2, 0.5), (3, 1.0)):
            self._between[...] = self._slopes[stage - 1]
            self._between *= part * self.dt
            self._between += self.state
            self.machine.evaluate(self._between_views, step, step)
            self.machine.drift(self._slope_views[stage])
        first, second, third, fourth = self._slopes
        self.change[...] = second
        self.change += third
        self.change *= 2
        self.change += first
        self.change += fourth
        self.change *= self.dt / 6
        self.state += self.change

    def _shake(self, population: Population) -> None:
        """Add white noise (Euler-Maruyama)."""
        kind: Any = population.kind
        value = self.views[population.name]["value"]
        if self._normal is not None:
            spread = population.noise * (2 * self.dt / kind.tau) ** 0.5
            value += spread * self._normal(tuple(value.shape))


def as_numpy(array: Array) -> NDArray[np.float64]:
    """Return an array of any library as a NumPy array on the CPU."""
    if not array_api_compat.is_numpy_array(array):
        array = array_api_compat.to_device(array, "cpu")
    return np.asarray(array, dtype=np.float64)
