r"""A pyramidal neuron of a few compartments on Brian 2: soma, apical trunk, and thin branches.

Every branch is one isopotential distal site that carries excitatory synapses and is coupled to its
parent by the axial conductance of its stem. All compartments are passive; what is nonlinear are the
synapses: NMDA receptors let more current in the more the branch is depolarised, so that a branch
that gets enough of it jumps to a plateau (an NMDA spike).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar
from zlib import crc32

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pcsim.brian import local_brian
from pcsim.engine_run import frames_of_steps, recorded_steps
from pcsim.messages import check_choice, check_integer, check_number, refusal
from pcsim.responses import check_stimulus, make_responses

__all__ = ["DendriticNeuron"]

SYNAPSES = ("nmda", "ampa", "current")
"""AMPA and NMDA; AMPA alone; or currents that do not depend on the voltage (linear dendrites)."""

_BRANCH = """
dv/dt = (g_leak*(E_leak - v) + g_axial*(v_parent - v) + (g_ampa + g_nmda*block)*(E_syn - v)
         + i_syn)/C : volt
dg_ampa/dt = -g_ampa/tau_ampa : siemens
dg_nmda/dt = (rise - g_nmda)/tau_nmda : siemens
drise/dt = -rise/tau_rise : siemens
di_syn/dt = -i_syn/tau_ampa : amp
block = 1/(1 + mg/3.57*exp(-0.062*v/mV)) : 1 (constant over dt)
v_parent : volt (linked)
"""
_TRUNK = """
dv/dt = (g_leak*(E_leak - v) + g_axial*(v_parent - v) + i_branches)/C : volt
i_branches : amp
v_parent : volt (linked)
"""
_SOMA = """
dv/dt = (g_leak*(E_leak - v) + i_branches + i_trunk)/C : volt (unless refractory)
i_branches : amp
i_trunk : amp
"""


@dataclass(frozen=True, kw_only=True)
class DendriticNeuron:
    r"""Some neurons with basal and apical branches, driven by Poisson synapses on each branch.

    .. math:: C\dot v = g_L(E_L - v) + g_a(v_\text{parent} - v)
        + \left(g_\text{AMPA} + \frac{g_\text{NMDA}}{1 + \frac{[Mg]}{3.57}e^{-0.062 v/\text{mV}}}
        \right)(E_s - v)

    The stimulus has one feature a branch (basal first): the rate at which spikes arrive there, per
    second. Each spike adds a unit conductance, times the strength of that branch. The soma
    integrates and fires. What is recorded is the number of spikes in each interval of
    `record_dt`, divided by it.

    Branch defaults are those of a site 150 um out on a dendrite 0.8 um thick (axial resistivity
    150 ohm cm: 450 Mohm), soma and trunk those of a pyramidal cell with an input resistance of
    some 80 Mohm and a membrane time constant of 15 ms. They were set from these sizes, not fitted.

    References
    ----------
    Jahr and Stevens (1990), https://doi.org/10.1523/JNEUROSCI.10-09-03178.1990 (magnesium block);
    Poirazi, Brannon and Mel (2003), https://doi.org/10.1016/S0896-6273(03)00149-1
    """

    n_neurons: int = 4
    n_basal: int = 6
    n_apical: int = 4
    synapses: str = "nmda"
    """ "nmda", "ampa" or "current"."""
    spread: float = 0.2
    """Standard deviation of the logarithm of the branches' synaptic strengths."""
    morphology_seed: int = 0
    """Seeds these strengths."""
    g_ampa: float = 0.3e-9
    """Peak AMPA conductance of a spike, siemens."""
    g_nmda: float = 1.0e-9
    """NMDA conductance of a spike without magnesium, siemens."""
    g_ampa_alone: float = 19.4e-9
    """Peak AMPA conductance of a spike where there is no NMDA, siemens."""
    i_alone: float = 196e-12
    """Peak current of a spike with linear synapses, ampere.

    Both were found by bisection so that the neuron fires at the mean rate that it has with NMDA
    (39 Hz) over 60 random patterns of `pcsim.protocols.synapses`, drawn with a seed of their own.
    """
    tau_ampa: float = 0.002
    tau_rise: float = 0.003
    tau_nmda: float = 0.05
    """Decay time constants, seconds."""
    magnesium: float = 1.0
    """Millimolar."""
    g_axial: float = 2.2e-9
    """Branch to parent, siemens."""
    g_trunk: float = 15e-9
    """Trunk to soma, siemens."""
    threshold: float = -0.050
    reset: float = -0.058
    """Volt."""
    refractory: float = 0.003
    """Seconds."""
    dt: float = 2.5e-4
    record_dt: float | None = 0.01
    """Seconds between recorded rates, a multiple of `dt`."""

    field_shape: ClassVar[None] = None
    px_per_deg: ClassVar[None] = None
    senses: ClassVar[str] = "synapses"

    def __post_init__(self) -> None:
        where = type(self).__name__
        check_choice(where, "synapses", self.synapses, SYNAPSES)
        for name in ("n_neurons", "n_basal", "n_apical"):
            check_integer(where, name, getattr(self, name), low=1)
        for name in ("tau_ampa", "tau_rise", "tau_nmda", "g_axial", "g_trunk", "dt"):
            check_number(where, name, getattr(self, name), positive=True)

    @property
    def n_features(self) -> int:
        """Number of branches."""
        return self.n_basal + self.n_apical

    @property
    def strengths(self) -> NDArray[np.float64]:
        """Return the synaptic strengths, (neuron, branch): 1 in the median."""
        rng = np.random.default_rng([self.morphology_seed, 2003])
        return np.exp(self.spread * rng.standard_normal((self.n_neurons, self.n_features)))

    def run(
        self, stimulus: xr.DataArray, *, seed: int = 0, record: Sequence[str] | None = None
    ) -> xr.Dataset:
        """Run all trials and neurons in one Brian 2 network.

        Parameters
        ----------
        stimulus : (trial, time, feature)
            Spikes per second that arrive at each branch, not negative.
        seed
            Seeds the arrival of spikes, together with what the trial shows, so that a trial does
            not depend on the others.

        Returns
        -------
        responses : xr.Dataset
            Rates of the somata, Hz.

        Raises
        ------
        ImportError
            If Brian 2 is not installed.
        ValueError
            If the stimulus has not one feature a branch, or a negative rate.
        """
        where = type(self).__name__
        check_stimulus(stimulus, where)
        rates = _arrivals(where, stimulus, self.n_features)
        frame_of = frames_of_steps(where, stimulus, self.dt)
        every, n_recorded = recorded_steps(where, self, len(frame_of))
        with local_brian(seed) as brian2:
            network = _Network(brian2, self, len(rates))
            counts = network.run(rates, frame_of, every, n_recorded, seed)
        units = {
            "name": np.full(self.n_neurons, "soma"),
            "population": np.full(self.n_neurons, "output"),
            "level": np.zeros(self.n_neurons, dtype=int),
            "area": np.full(self.n_neurons, ""),
        }
        return make_responses(
            counts / (every * self.dt),
            time=self.dt * every * np.arange(1, n_recorded + 1),
            units=units,
            trial=stimulus,
            attrs={"circuit": where, "dt": self.dt, "integrator": "brian2 exponential euler"},
        )


def _arrivals(where: str, stimulus: xr.DataArray, n_branches: int) -> NDArray[np.float64]:
    values = np.asarray(stimulus.values, dtype=np.float64)
    if values.ndim != 3 or values.shape[-1] != n_branches:
        found = f"a stimulus of shape {values.shape}"
        expected = f"(trial, time, {n_branches}): one rate a branch"
        raise ValueError(refusal(where, found, expected, "Show rates of arriving spikes."))
    if (values < 0).any():
        found = f"an arrival rate of {values.min():g} per second"
        raise ValueError(refusal(where, found, "rates of 0 or more"))
    return values


class _Network:
    """The compartments of all trials and neurons as three Brian 2 groups."""

    def __init__(self, brian2: Any, neuron: DendriticNeuron, n_trials: int) -> None:
        self.brian2, self.neuron, self.n_trials = brian2, neuron, n_trials
        cells, branches = n_trials * neuron.n_neurons, neuron.n_features
        cell = np.repeat(np.arange(cells), branches)
        is_apical = np.tile(np.arange(branches) >= neuron.n_basal, cells)
        self.network = brian2.Network()
        clock = self.clock = brian2.Clock(dt=neuron.dt * brian2.second)
        space = self._namespace()
        self.soma = self._group(cells, _SOMA, {**space, **_sized(brian2, 150.0, 10.0)}, spikes=True)
        trunk_space = {**space, **_sized(brian2, 30.0, 2.0)}
        trunk_space["g_axial"] = neuron.g_trunk * brian2.siemens
        self.trunk = self._group(cells, _TRUNK, trunk_space)
        self.basal = self._group(
            (~is_apical).sum(), _BRANCH, {**space, **_sized(brian2, 4.0, 0.25)}
        )
        self.apical = self._group(is_apical.sum(), _BRANCH, {**space, **_sized(brian2, 4.0, 0.25)})
        self.trunk.v_parent = brian2.linked_var(self.soma, "v")
        self.basal.v_parent = brian2.linked_var(self.soma, "v", index=cell[~is_apical])
        self.apical.v_parent = brian2.linked_var(self.trunk, "v", index=cell[is_apical])
        axial = neuron.g_axial * brian2.siemens
        self._flow(self.basal, self.soma, "i_branches", cell[~is_apical], axial, clock)
        self._flow(self.apical, self.trunk, "i_branches", cell[is_apical], axial, clock)
        trunk_axial = neuron.g_trunk * brian2.siemens
        self._flow(self.trunk, self.soma, "i_trunk", np.arange(cells), trunk_axial, clock)

    def _namespace(self) -> dict[str, Any]:
        second, siemens, volt = self.brian2.second, self.brian2.siemens, self.brian2.volt
        neuron = self.neuron
        return {
            "E_leak": -0.070 * volt,
            "E_syn": 0.0 * volt,
            "mV": self.brian2.mV,
            "tau_ampa": neuron.tau_ampa * second,
            "tau_rise": neuron.tau_rise * second,
            "tau_nmda": neuron.tau_nmda * second,
            "mg": neuron.magnesium,
            "g_axial": neuron.g_axial * siemens,
            "threshold": neuron.threshold * volt,
            "reset": neuron.reset * volt,
        }

    def _group(self, n: Any, equations: str, space: dict[str, Any], *, spikes: bool = False) -> Any:
        firing: dict[str, Any] = {}
        if spikes:
            firing = {"threshold": "v > threshold", "reset": "v = reset"}
            firing["refractory"] = self.neuron.refractory * self.brian2.second
        group = self.brian2.NeuronGroup(
            int(n), equations, method="exponential_euler", clock=self.clock, namespace=space,
            **firing,
        )  # fmt: skip
        group.v = -0.070 * self.brian2.volt
        self.network.add(group)
        return group

    def _flow(
        self, source: Any, target: Any, into: str, parent: Any, conductance: Any, clock: Any
    ) -> None:
        """Sum the axial currents of the children into their parents."""
        synapses = self.brian2.Synapses(
            source,
            target,
            f"{into}_post = conductance*(v_pre - v_post) : amp (summed)",
            clock=clock,
            namespace={"conductance": conductance},
        )
        synapses.connect(i=np.arange(len(parent)), j=parent)
        self.network.add(synapses)

    def run(
        self,
        rates: NDArray[np.float64],
        frame_of: Sequence[int],
        every: int,
        n_recorded: int,
        seed: int,
    ) -> NDArray[np.float64]:
        """Return spike counts, (trial, time, neuron)."""
        neuron, brian2 = self.neuron, self.brian2
        streams = [np.random.default_rng([seed, crc32(one.tobytes())]) for one in rates]
        counts = np.zeros((n_recorded, self.n_trials * neuron.n_neurons))
        shape = (every, neuron.n_neurons, neuron.n_features)
        blocks: dict[str, Any] = {}

        def arrive(t: Any) -> None:
            step = round(float(t / brian2.second) / neuron.dt)
            if step % every == 0:
                shown = frame_of[step : step + every]
                expected = neuron.dt * rates[:, shown][:, :, None, :]
                drawn = [
                    stream.poisson(np.broadcast_to(one, (len(shown), *shape[1:])))
                    for stream, one in zip(streams, expected, strict=True)
                ]
                blocks["now"] = np.stack(drawn, axis=1)
            self._add(blocks["now"][step % every])

        operation = brian2.NetworkOperation(arrive, clock=self.clock, when="start")
        monitor = brian2.SpikeMonitor(self.soma)
        self.network.add(operation, monitor)
        self.network.run(every * n_recorded * neuron.dt * brian2.second, namespace={})
        when = np.floor(np.asarray(monitor.t / brian2.second) / (every * neuron.dt) + 1e-6)
        np.add.at(counts, (when.astype(int), np.asarray(monitor.i)), 1.0)
        return counts.reshape(n_recorded, self.n_trials, neuron.n_neurons).swapaxes(0, 1)

    def _add(self, arrived: NDArray[np.int64]) -> None:
        """Open the synapses where spikes arrived, (trial, neuron, branch)."""
        neuron = self.neuron
        strength = arrived * neuron.strengths
        for group, part in (
            (self.basal, strength[..., : neuron.n_basal]),
            (self.apical, strength[..., neuron.n_basal :]),
        ):
            flat = part.ravel()
            if neuron.synapses == "current":
                group.variables["i_syn"].get_value()[:] += neuron.i_alone * flat
            elif neuron.synapses == "ampa":
                group.variables["g_ampa"].get_value()[:] += neuron.g_ampa_alone * flat
            else:
                group.variables["g_ampa"].get_value()[:] += neuron.g_ampa * flat
                # The peak of the double exponential is g_nmda times a constant near 1.
                rise = neuron.g_nmda * neuron.tau_nmda / neuron.tau_rise
                group.variables["rise"].get_value()[:] += rise * flat


def _sized(brian2: Any, picofarad: float, nanosiemens: float) -> dict[str, Any]:
    return {"C": picofarad * brian2.pfarad, "g_leak": nanosiemens * brian2.nsiemens}
