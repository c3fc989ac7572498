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
from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["log_mass", "log_mass_slope", "log_tail", "log_tail_slope"]

NARROW = 0.1
"""Below it the series' first omitted term is under 1e-11."""
N_FRACTIONS = 12
"""Of the hazard's continued fraction; at 8 they leave a relative error of 2e-15."""

Form = Callable[[Tensor, Tensor], Tensor]


def log_mass(centre: Tensor, width: Tensor) -> Tensor:
    """Log mass of a standard normal variable in a bin, elementwise and broadcast.

    Examples
    --------
    >>> log_mass(torch.tensor(0.0), torch.tensor(2.0)).exp()  # within one sigma
    tensor(0.6827)
    """
    return _by_form(centre.abs(), width, _narrow, _around, _far)


def log_mass_slope(centre: Tensor, width: Tensor) -> Tensor:
    r"""Derivative of `log_mass` in the centre, :math:`(\phi(c + h/2) - \phi(c - h/2)) / mass`.

    In each form the exponentials cancel beforehand: their difference would leave nothing in single
    precision from a thousand standard deviations on.
    """
    sign = torch.where(centre < 0, -1.0, 1.0).to(centre)  # not abs: the slope has one at 0
    return -sign * _by_form(sign * centre, width, _narrow_slope, _around_slope, _far_slope)


def _by_form(c: Tensor, width: Tensor, series: Form, middle: Form, outer: Form) -> Tensor:
    c, h = torch.broadcast_tensors(c, width)
    narrow = h * c.clamp(min=1) < NARROW
    around = ~narrow & (c < h / 2)
    far = ~narrow & ~around
    # Each form is fed harmless numbers where another is taken: its gradient there must be finite.
    one, three = torch.ones_like(c), torch.full_like(c, 3.0)
    small = torch.full_like(c, 0.01)
    first = series(torch.where(narrow, c, one), torch.where(narrow, h, small))
    second = middle(torch.where(around, c, small), torch.where(around, h, one))
    third = outer(torch.where(far, c, three), torch.where(far, h, one))
    return torch.where(narrow, first, torch.where(around, second, third))


def log_tail(edge: Tensor) -> Tensor:
    """Log mass below an edge of an open bin, with derivatives as accurate as itself.

    Below 0 it is density over hazard, because torch differentiates its own by a difference of
    squares of the edge, of which single precision leaves nothing.
    """
    below, above = edge.clamp(max=0.0), edge.clamp(min=0.0)
    log_density = -0.5 * below.square() - 0.5 * math.log(2 * math.pi)
    first = log_density - _hazard(-below).log()
    second: Tensor = torch.special.log_ndtr(above)
    return torch.where(edge < 0, first, second)


def log_tail_slope(edge: Tensor) -> Tensor:
    """Derivative of `log_tail` in the edge: density over mass."""
    return _hazard(-edge)


def _narrow(c: Tensor, h: Tensor) -> Tensor:
    log_density = -0.5 * c.square() - 0.5 * math.log(2 * math.pi)
    curved = _curved(c, h)
    return log_density + h.log() + torch.log1p(curved)


def _curved(c: Tensor, h: Tensor) -> Tensor:
    second = (c.square() - 1) * h.square() / 24
    fourth = (c.pow(4) - 6 * c.square() + 3) * h.pow(4) / 1920
    return second + fourth


def _narrow_slope(c: Tensor, h: Tensor) -> Tensor:
    half = (c * h / 2).square()
    sine = 1 + half / 6 * (1 + half / 20 * (1 + half / 42))  # sinh(ch/2) / (ch/2)
    return c * sine * (-h.square() / 8).exp() / (1 + _curved(c, h))


def _around(c: Tensor, h: Tensor) -> Tensor:
    return torch.log(_around_mass(c, h))


def _around_mass(c: Tensor, h: Tensor) -> Tensor:
    above, below = (h / 2 + c) / math.sqrt(2), (h / 2 - c) / math.sqrt(2)
    mass: Tensor = 0.5 * (torch.erf(above) + torch.erf(below))
    return mass


def _around_slope(c: Tensor, h: Tensor) -> Tensor:
    near = (-0.5 * (c - h / 2).square()).exp() / math.sqrt(2 * math.pi)
    return near * -torch.expm1(-c * h) / _around_mass(c, h)


def _far(c: Tensor, h: Tensor) -> Tensor:
    near, beyond = c - h / 2, c + h / 2
    log_near: Tensor = torch.special.erfcx(near / math.sqrt(2)).log()
    log_beyond: Tensor = torch.special.erfcx(beyond / math.sqrt(2)).log()
    ratio = c * h + log_near - log_beyond
    lost: Tensor = torch.log(-torch.expm1(-ratio))
    return -0.5 * near.square() + log_near - math.log(2) + lost


def _far_slope(c: Tensor, h: Tensor) -> Tensor:
    near, beyond = _hazard(c - h / 2), _hazard(c + h / 2)
    ratio = c * h + (beyond / near).log()
    return near * torch.expm1(-c * h) / torch.expm1(-ratio)


def _hazard(t: Tensor) -> Tensor:
    r"""Density at :math:`t` over the mass above it, with derivatives as accurate as itself.

    From 8 on it is Laplace's continued fraction :math:`t + 1/(t + 2/(t + 3/(t + \dots)))`.
    """
    low, high = t < 0, t > 8
    below, above = t.clamp(max=0.0), t.clamp(min=8.0)
    density = (-0.5 * below.square()).exp() / math.sqrt(2 * math.pi)
    first: Tensor = density / torch.special.ndtr(-below)
    between = torch.where(low | high, torch.ones_like(t), t)
    second: Tensor = math.sqrt(2 / math.pi) / torch.special.erfcx(between / math.sqrt(2))
    third = above
    for k in range(N_FRACTIONS, 0, -1):
        third = above + k / third
    return torch.where(low, first, torch.where(high, third, second))
