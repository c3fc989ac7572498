"""The pyramidal neuron as a small network: sigmoidal subunits on basal and apical branches.

What it predicts: H35, a network of two layers explains its rate and a point neuron does not. Basal
subunits reach the soma directly, apical ones through an integration zone of their own, which is
where a cortical pyramidal cell keeps input from its own level apart from input from above.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import xarray as xr

from pcsim.circuit import Circuit, Population, Projection
from pcsim.kinds import Leaky

__all__ = ["MODEL", "Poirazi2003"]


@dataclass(frozen=True, kw_only=True)
class Poirazi2003(Circuit):
    r"""Two stages: subunits squash the input of their branch, the soma sums the subunits.

    .. math:: \tau_d\dot u_b = -u_b + n_b, \quad y_b = \sigma\!\left(\frac{u_b - \theta}{\kappa}
        \right), \qquad \tau_d\dot a = -a + \sum_{b\,\text{apical}} y_b, \qquad
        \tau_s\dot v = -v + \sum_{b\,\text{basal}} y_b + w_a a, \quad r = g\,[v - \theta_s]_+

    with :math:`n_b` the number of active synapses on branch b, the arriving spikes per second over
    `synapse_rate`. With ``nonlinear=False`` a subunit passes :math:`(u_b - \theta)/4\kappa + 1/2`,
    the tangent of its sigmoid: a point neuron. Form of the model after Poirazi, Brannon & Mel
    (2003) and, for the apical zone, Häusser & Mel (2003); the numbers are our own choice.

    References
    ----------
    Poirazi, Brannon and Mel (2003), https://doi.org/10.1016/S0896-6273(03)00149-1
    """

    n_basal: int = 6
    n_apical: int = 4
    nonlinear: bool = True
    """False gives linear branches."""
    theta: float = 3.0
    """Synapses at which a subunit is half active; a plateau of the NMDA neuron starts here."""
    kappa: float = 0.5
    """Width of the sigmoid, synapses."""
    apical_weight: float = 0.7
    """Weight of the apical zone at the soma, relative to a basal subunit."""
    somatic_threshold: float = 0.5
    """Subunits."""
    gain: float = 20.0
    """Hz a subunit."""
    synapse_rate: float = 30.0
    """Spikes per second of one active synapse."""
    tau_dendrite: float = 0.05
    """Seconds, that of NMDA currents."""
    tau_soma: float = 0.015
    """Seconds."""

    senses: ClassVar[str] = "synapses"

    @property
    def n_features(self) -> int:
        """Number of branches, basal first."""
        return self.n_basal + self.n_apical

    @property
    def populations(self) -> tuple[Population, ...]:
        """Basal and apical subunits, the apical zone, and the soma."""
        form = "logistic" if self.nonlinear else "linear"
        branch = Leaky(self.tau_dendrite, nonlinearity=form, threshold=self.theta / self.kappa)
        # What the tangents' constants of 1/2 would add at the soma.
        constant = 0.5 * (self.n_basal + self.apical_weight * self.n_apical)
        threshold = self.somatic_threshold - (0.0 if self.nonlinear else constant)
        zone = Leaky(self.tau_dendrite)
        soma = Leaky(self.tau_soma, nonlinearity="relu", threshold=threshold)
        return (
            Population("basal", branch, self.n_basal, 0, "input", layer="L4"),
            Population("apical", branch, self.n_apical, 0, "input", layer="L1"),
            Population("zone", zone, 1, 0, "interneuron", layer="L2/3"),
            Population("soma", soma, 1, 1, "latent", layer="L5/6"),
            Population("rate", Leaky(1e-3), 1, 1, "output", layer="L5/6"),
        )

    @property
    def projections(self) -> tuple[Projection, ...]:
        """From the synapses to the branches, and on to the soma."""
        places = np.eye(self.n_features)
        slope = 1.0 if self.nonlinear else 0.25
        return (
            Projection("stimulus", "basal", places[: self.n_basal], port="drive"),
            Projection("stimulus", "apical", places[self.n_basal :], port="drive"),
            Projection("apical", "zone", np.full((1, self.n_apical), slope), port="drive"),
            Projection("basal", "soma", np.full((1, self.n_basal), slope), port="drive"),
            Projection("zone", "soma", np.full((1, 1), self.apical_weight), port="drive"),
            Projection("soma", "rate", np.full((1, 1), self.gain), port="drive"),
        )

    def prepare(self, stimulus: xr.DataArray) -> Any:
        """Return active synapses a branch in units of `kappa`, (trial, time, branch)."""
        return Circuit.prepare(self, stimulus) / (self.synapse_rate * self.kappa)


MODEL = Poirazi2003()
