r"""The probability that a Gaussian variable falls into a bin, in logarithms that survive the tails.

With :math:`c` the distance of the bin's centre from the mean and :math:`h` its width, both in
standard deviations, the mass is :math:`\Phi(c + h/2) - \Phi(c - h/2)`. The difference cancels where
the bin is narrow and underflows where it is far, so three forms share the plane:

- narrow, :math:`h \max(1, |c|) < 0.1`: the density's Taylor series around the centre;
- around the mean, :math:`|c| < h/2`: a sum of two error functions of one sign;
- elsewhere: scaled complementary error functions, whose logarithms are subtracted.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["log_mass", "log_mass_slope", "log_tail"]

NARROW = 0.1
"""Below it the series' first omitted term is under 1e-11."""


def log_mass(centre: Tensor, width: Tensor) -> Tensor:
    """Log mass of a standard normal variable in a bin, elementwise and broadcast.

    Examples
    --------
    >>> log_mass(torch.tensor(0.0), torch.tensor(2.0)).exp()  # within one sigma
    tensor(0.6827)
    """
    c, h = torch.broadcast_tensors(centre.abs(), width)
    narrow = h * c.clamp(min=1) < NARROW
    around = ~narrow & (c < h / 2)
    far = ~narrow & ~around
    # Each form is fed harmless numbers where another is taken: its gradient there must be finite.
    one, three = torch.ones_like(c), torch.full_like(c, 3.0)
    small = torch.full_like(c, 0.01)
    series = _narrow(torch.where(narrow, c, one), torch.where(narrow, h, small))
    middle = _around(torch.where(around, c, small), torch.where(around, h, one))
    outer = _far(torch.where(far, c, three), torch.where(far, h, one))
    return torch.where(narrow, series, torch.where(around, middle, outer))


def log_mass_slope(centre: Tensor, width: Tensor) -> Tensor:
    r"""Derivative of `log_mass` in the centre, :math:`(\phi(c + h/2) - \phi(c - h/2)) / mass`."""
    c = centre.abs()
    # log of phi(c - h/2) - phi(c + h/2) = phi(c) exp(-h^2/8) 2 sinh(ch/2)
    exponent = -0.5 * (c - width / 2).square() - 0.5 * math.log(2 * math.pi)
    lost = torch.log(-torch.expm1(-c * width).clamp(max=-torch.finfo(c.dtype).tiny))
    slope = (exponent + lost - log_mass(c, width)).exp()
    return -centre.sign() * slope


def log_tail(edge: Tensor) -> tuple[Tensor, Tensor]:
    """Log mass below an edge of an open bin, and its derivative in the edge."""
    log_below = torch.special.log_ndtr(edge)
    log_density = -0.5 * edge.square() - 0.5 * math.log(2 * math.pi)
    return log_below, (log_density - log_below).exp()


def _narrow(c: Tensor, h: Tensor) -> Tensor:
    log_density = -0.5 * c.square() - 0.5 * math.log(2 * math.pi)
    second = (c.square() - 1) * h.square() / 24
    fourth = (c.pow(4) - 6 * c.square() + 3) * h.pow(4) / 1920
    return log_density + h.log() + torch.log1p(second + fourth)


def _around(c: Tensor, h: Tensor) -> Tensor:
    above, below = (h / 2 + c) / math.sqrt(2), (h / 2 - c) / math.sqrt(2)
    return torch.log(0.5 * (torch.erf(above) + torch.erf(below)))


def _far(c: Tensor, h: Tensor) -> Tensor:
    near, beyond = c - h / 2, c + h / 2
    log_near: Tensor = torch.special.erfcx(near / math.sqrt(2)).log()
    log_beyond: Tensor = torch.special.erfcx(beyond / math.sqrt(2)).log()
    ratio = c * h + log_near - log_beyond
    lost: Tensor = torch.log(-torch.expm1(-ratio))
    return -0.5 * near.square() + log_near - math.log(2) + lost
