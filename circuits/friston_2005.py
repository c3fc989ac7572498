r"""Lateral inhibition between error units as inverse covariance (Friston 2005).

.. math:: \tau\,\dot\xi = x - W\mu - e, \qquad \tau_e\,\dot e = M\xi - e, \qquad
    \tau_\mu\,\dot\mu = W^\top B\,\xi - \Pi_z\mu

Interneurons e carry what error units send to each other. At rest :math:`\xi = M^{-1}(x - W\mu)`:

- "precision" (Bogacz 2017, section 5): :math:`M = C`, full precision weighting, B = 1;
- "symmetric" (Friston 2005, where :math:`M = 1 + \lambda = C^{1/2}`): decorrelated errors, ZCA;
- "triangular": :math:`M = L`, :math:`C = LL^\top`: each unit is inhibited only by those before it,
  an autoregressive flow.

In both whitening schemes the ascending weights undo the rotation, :math:`B = M^{-\top}`, so that in
all three :math:`\mu` rests at the same MAP estimate. The loop of errors and interneurons is stable
if, for every eigenvalue m of M, :math:`\mathrm{Re}\,m > (\tau_e/\tau)(\mathrm{Im}\,m)^2`; real
positive ones, of all three schemes, always are.

M is learned by Hebbian synapses onto the interneurons (`pcsim.lateral` derives the fixed points).
With `learning_rate` set, `pcsim.circuit.simulate_plastic` learns the "symmetric" M in the running
circuit: Hebbian growth against a decay of the same rate. Its generalization is divisive: small
signals on a background see the units of `carandini_heeger_2012` as such a circuit. Controls:
`lateral="random"` (same eigenvalues, random basis) and "none" (self-inhibition only).

Friston (2005), A theory of cortical responses, Phil. Trans. R. Soc. B 360:815-836,
https://doi.org/10.1098/rstb.2005.1622; Bogacz (2017), https://doi.org/10.1016/j.jmp.2015.11.003.
Sizes, covariance and time constants are our own choice, errors being faster than latents and
interneurons faster still. It takes features, not images: no visual entry of the battery applies.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pcsim.circuit import Circuit, Hebbian, Population, Projection
from pcsim.kinds import Error, Latent, Leaky
from pcsim.lateral import LATERAL_SCHEMES, lateral_weights, random_lateral
from pcsim.messages import check_choice
from pcsim.priors import GaussianPrior

__all__ = ["MODEL", "Friston2005"]

N = 8


def neighbours() -> Any:
    """Return a (8, 8) covariance that falls by e in 3 units, with variances from 0.5 to 2."""
    place, deviation = np.arange(N), np.sqrt(np.linspace(0.5, 2.0, N))
    falls = np.exp(-np.abs(place[:, None] - place[None]) / 3.0)
    return deviation[:, None] * falls * deviation


def waves() -> Any:
    """Return (8, 2) top-down weights: one period of a cosine and of a sine."""
    angle = 2 * np.pi * np.arange(N) / N
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


@dataclass(frozen=True, kw_only=True)
class Friston2005(Circuit):
    """Error units, the interneurons between them, and the latents that predict.

    Examples
    --------
    >>> from pcsim.circuit import settle
    >>> from pcsim.responses import stimulus_array
    >>> x = np.arange(8.0)
    >>> rest = settle(MODEL, stimulus_array(x[None, None], frame_duration=0.1), tol=1e-12)
    >>> xi, mu = (rest.rate.values[0, -1, rest.name == name] for name in ("xi", "mu"))
    >>> bool(np.allclose(xi, np.linalg.solve(MODEL.covariance, x - MODEL.weights @ mu)))
    True
    """

    covariance: Any = field(default_factory=neighbours)
    """(n, n) covariance C of the input around its prediction."""
    scheme: str = "precision"
    """"precision", "symmetric" or "triangular"."""
    lateral: str = "learned"
    """"learned", or a control: "random" or "none"."""
    lateral_seed: int = 0
    """Of the random weights."""
    inhibition: Any = None
    """(n, n) lateral weights M, for instance from `pcsim.lateral.learn_lateral`; None takes their
    closed form."""
    weights: Any = field(default_factory=waves)
    """(n, k) top-down weights W."""
    prior_precision: float = 0.7
    """Inverse variance of the latents."""
    feedback_gain: float = 1.0
    """Gain of the prediction; 0 leaves the lateral circuit alone."""
    learning_rate: float = 0.0
    """Of the lateral weights ("symmetric"), per second; their decay is as fast."""
    tau: float = 0.01
    """Time constant of the error units, seconds."""
    tau_interneuron: float = 0.002
    """Seconds."""
    tau_latent: float = 0.1
    """Seconds."""
    dt: float = 0.0005

    def __post_init__(self) -> None:
        check_choice("friston_2005", "scheme", self.scheme, LATERAL_SCHEMES)
        check_choice("friston_2005", "lateral", self.lateral, ("learned", "random", "none"))

    @property
    def n_features(self) -> int:
        """Length of the input."""
        return int(self.weights.shape[0])

    @property
    def matrix(self) -> Any:
        """(n, n) lateral weights M in use."""
        learned = self.inhibition
        if learned is None:
            learned = lateral_weights(self.covariance, self.scheme)
        if self.lateral == "random":
            return random_lateral(learned, seed=self.lateral_seed)
        return np.diag(np.diag(learned)) if self.lateral == "none" else learned

    @property
    def populations(self) -> tuple[Population, ...]:
        """Error units, one interneuron for each, and latents."""
        n, k = self.weights.shape
        latent = Latent(tau=self.tau_latent, prior=GaussianPrior(precision=self.prior_precision))
        return (
            Population("xi", Error(tau=self.tau), n, 0, "weighted_error"),
            Population("lateral", Leaky(tau=self.tau_interneuron), n, 0, "interneuron"),
            Population("mu", latent, k, 1, "latent"),
        )

    @property
    def projections(self) -> tuple[Projection, ...]:
        """Input and prediction to the errors, the lateral loop, errors to latents."""
        matrix, rate = self.matrix, self.learning_rate
        rule = Hebbian(rate, decay=rate) if rate else None
        up = self.weights.T
        if self.scheme != "precision":
            up = np.linalg.solve(matrix, self.weights).T
        return (
            Projection("stimulus", "xi", port="observed"),
            Projection("mu", "xi", self.weights, port="predicted", sign=self.feedback_gain),
            Projection("xi", "lateral", matrix, port="drive", plastic=rule),
            Projection("lateral", "xi", port="inhibition"),
            Projection("xi", "mu", up, port="ascending", sign=self.feedback_gain),
        )


MODEL = Friston2005()
