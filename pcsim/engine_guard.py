"""Watching a run for activity that grows because its time step is too large, or by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import scipy.sparse.linalg
from numpy.typing import NDArray

from pcsim.declaration import Projection
from pcsim.engine import Integration, as_numpy
from pcsim.kinds.kind import Array
from pcsim.machine import Machine
from pcsim.machine_stack import Parts, move_parts
from pcsim.messages import refusal

__all__ = ["Guard", "largest_of", "largest_stable_dt"]

_SUSPECT = 100.0
"""A state this many times larger than the stimulus makes the guard look at the time step."""
_DENSE = 400
"""Up to this many states a Jacobian is computed whole."""
_FINEST = 64
"""How many times smaller a step is tried before a circuit counts as unstable by itself."""


class Guard:
    """Lets activity grow as long as the time step is not to blame, and stops the run if it is.

    Parameters
    ----------
    circuit
        Its time step and integrator.
    declared
        The checked parts of every replica, as declared.
    features : (..., trial, frame, feature)
        The prepared stimulus.
    """

    def __init__(
        self, circuit: Any, declared: Sequence[Parts], features: NDArray[np.float64]
    ) -> None:
        self.where, self.dt = type(circuit).__name__, circuit.dt
        self.integrator = circuit.integrator
        self._declared, self._features = declared, features
        self._trusted = _SUSPECT * (1 + largest_of(features))
        self._before: Array = None

    def look(self, integration: Integration, step: int) -> None:
        """Refuse the state after `step` if it is on its way to infinity.

        Raises
        ------
        RuntimeError
            Naming the largest time step that is stable.
        """
        largest = largest_of(integration.state)
        if largest <= self._trusted:
            if self._before is None:
                self._before = integration.machine.zeros(integration.machine.n_states)
            self._before[...] = integration.state
            return
        state = as_numpy(integration.state)
        size = np.where(np.isfinite(state), abs(state), np.inf)
        *replica, trial, _ = (int(i) for i in np.unravel_index(np.argmax(size), state.shape))
        shown = integration.machine.frame_of[: step + 1]
        stable = self._stable_dt(tuple(replica), trial, shown)
        if np.isfinite(largest) and stable >= self.dt:
            self._trusted = 1e3 * largest
            return
        if stable >= self.dt or stable == 0:
            stable = self._bounded_dt(tuple(replica), trial, shown)
        raise RuntimeError(self._message(stable, (step + 1) * self.dt))

    def _message(self, stable: float, time: float) -> str:
        found = f"activity that diverged within {time:g} s"
        if stable == 0:
            expected = "a circuit that is stable at some time step"
            advice = "It grows at any dt: weaken its loops, or raise the leak or prior precision."
        else:
            expected = f"a time step of at most {stable:.3g} s instead of {self.dt:g} s"
            advice = f"Use dataclasses.replace(circuit, dt={stable:.3g})."
        return refusal(self.where, found, expected, advice)

    def _parts_of(self, replica: tuple[int, ...]) -> Parts:
        own = self._declared[replica[0] if len(self._declared) > 1 else 0]
        populations, projections = move_parts(own, np.asarray)
        return populations, tuple(_one_replica(p, replica) for p in projections)

    def _stable_dt(self, replica: tuple[int, ...], trial: int, shown: Sequence[int]) -> float:
        """Return the largest stable step of the linearised circuit, at zero and just before."""
        populations, projections = self._parts_of(replica)
        quiet = [p if p.delay < self.dt / 2 else replace(p, sign=0.0) for p in projections]
        feature = self._features[replica][trial][[max(shown[-1], 0)]]

        def build(n_trials: int, dt: float) -> Machine:
            frames = np.broadcast_to(feature, (n_trials, *feature.shape))
            return Machine(populations, quiet, frames, [0], dt=dt)

        references = [np.zeros(build(1, self.dt).n_states)]
        if self._before is not None:
            references.append(as_numpy(self._before)[replica][trial])
        return min(
            largest_stable_dt(build, state, integrator=self.integrator, dt=self.dt)
            for state in references
        )

    def _bounded_dt(self, replica: tuple[int, ...], trial: int, shown: Sequence[int]) -> float:
        """Return the first of the steps dt / 2, dt / 4 ... that stays bounded; 0 if none does."""
        populations, projections = self._parts_of(replica)
        frames = self._features[replica][[trial]]
        finer = 2
        while finer <= _FINEST:
            frame_of = np.repeat(shown, finer).tolist()
            machine = Machine(populations, projections, frames, frame_of, dt=self.dt / finer)
            run = Integration(machine, self.integrator)
            for step in range(len(frame_of)):
                run.step(step)
                if step % 50 == 0 and not np.isfinite(largest_of(run.state)):
                    break
            if largest_of(run.state) <= self._trusted:
                return float(self.dt / finer)
            finer *= 2
        return 0.0


def _one_replica(projection: Projection, replica: tuple[int, ...]) -> Projection:
    if replica and np.ndim(projection.weights) == 3:
        return replace(projection, weights=projection.weights[replica[0]])
    return projection


def largest_of(state: Array) -> float:
    """Return the largest magnitude; infinity if there is anything that is not finite."""
    if 0 in state.shape:
        return 0.0
    low, high = float(state.min()), float(state.max())
    return max(-low, high) if np.isfinite(low) and np.isfinite(high) else np.inf


def largest_stable_dt(
    build: Any, state: NDArray[np.float64], *, integrator: str, dt: float
) -> float:
    """Return the largest time step, up to `dt`, at which small deviations do not grow.

    The step itself is linearised around `state` by finite differences: its Jacobian whole up to
    400 states, its leading eigenvalue by Arnoldi iteration beyond. Delays are left out.

    Parameters
    ----------
    build
        ``build(n_trials, dt)`` returns a machine for so many equal trials.
    state : (n_states,)
        Where to linearise.
    integrator, dt
        As in the run that diverged.

    Returns
    -------
    dt : float
        Seconds; 0 if deviations grow at any step, because the circuit itself is unstable.
    """

    def grows(step: float) -> bool:
        return _spectral_radius(build, state, integrator, step) > 1 + 1e-7

    low, high = dt, dt
    if not grows(dt):
        return dt
    while grows(low):
        low, high = low / 2, low
        if low < 1e-4 * dt:
            return 0.0
    for _ in range(10):
        middle = (low * high) ** 0.5
        low, high = (low, middle) if grows(middle) else (middle, high)
    # A little below, so that the number can be printed with three digits and still holds.
    return 0.995 * low


def _spectral_radius(build: Any, state: NDArray[np.float64], integrator: str, dt: float) -> float:
    n = state.size
    size = 1e-5 * (1 + float(np.abs(state).max(initial=0.0)))

    def moved(directions: NDArray[np.float64]) -> NDArray[np.float64]:
        run = Integration(build(2 * len(directions), dt), integrator)
        run.state[...] = state + size * np.concatenate([directions, -directions])
        run.step(0)
        up, down = np.split(run.state, 2)
        moved: NDArray[np.float64] = (up - down) / (2 * size)
        return moved

    if n <= _DENSE:
        return float(np.abs(np.linalg.eigvals(moved(np.eye(n)))).max(initial=0.0))
    operator = scipy.sparse.linalg.LinearOperator(
        (n, n), matvec=lambda v: moved(v.reshape(1, n))[0], dtype=np.float64
    )
    start = np.random.default_rng(0).standard_normal(n)
    try:
        leading = scipy.sparse.linalg.eigs(
            operator, k=1, v0=start, ncv=40, tol=1e-5, return_eigenvectors=False
        )
    except scipy.sparse.linalg.ArpackNoConvergence as stopped:
        leading = stopped.eigenvalues
    return float(np.abs(leading).max(initial=0.0))
