"""Targets on models: inference, flows, filters, circuits."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from hypothesis import strategies as st
from malformed_data import IMAGES, STIMULUS
from malformed_values import (
    NEGATIVE,
    NO_COUNT,
    NO_NAME,
    NO_SHAPE,
    NOT_POSITIVE,
    NOT_REAL,
    Target,
    no_array,
    no_precision,
    shape_of,
)

from pcsim import filters, inference, priors
from pcsim.circuit import Circuit, Population, Projection, settle
from pcsim.kinds import DivisiveNormalization, Error, Latent, Leaky, TemporalRelay
from pcsim.nonlinearity import nonlinearity, power, soft_threshold
from pcsim.normalization import DivisiveNormalization as Normalization
from pcsim.whitening import TemporalAR, Whitening

LEVEL = {"weights": np.array([[0.7, 0.2], [-0.4, 0.9], [0.3, 0.1]]), "precision": 0.7}
TWO = inference.Hierarchy(
    levels=(inference.Level(**LEVEL),), priors=(inference.GaussianPrior(precision=4.0),)
)


def hierarchy_of(**changes: Any) -> Any:
    """Run inference in a hierarchy of one level with these parts."""
    level = inference.Level(**{**LEVEL, **changes.pop("level", {})})
    prior = changes.pop("prior", inference.GaussianPrior(precision=4.0))
    hierarchy = inference.Hierarchy(levels=(level,), priors=(prior,))
    return inference.map_exact(hierarchy, np.array([0.4, -0.2, 0.7]))


MAPS = (inference.map_gradient, inference.map_gauss_newton, inference.map_exact)
INFERENCE = [
    Target(
        "inference",
        lambda precision: hierarchy_of(level={"precision": precision}),
        {"precision": 0.7},
        {"precision": no_precision(3)},
    ),
    Target(
        "inference",
        lambda weights: hierarchy_of(level={"weights": weights}),
        {"weights": LEVEL["weights"]},
        {
            "weights": no_array(3, 2).filter(
                lambda w: (shape_of(w) or ())[:1] != (3,) or len(shape_of(w)) != 2
            )
        },
    ),
    Target(
        "inference",
        lambda precision: hierarchy_of(prior=inference.GaussianPrior(precision=precision)),
        {"precision": 4.0},
        {"precision": no_precision(2)},
    ),
    Target(
        "inference",
        lambda alpha: inference.map_gradient(
            replace(TWO, priors=(inference.SparsePrior(alpha=alpha),)), np.ones(3)
        ),
        {"alpha": 0.7},
        {"alpha": NEGATIVE},
    ),
    Target("inference", priors.check_precision, {"where": "a", "name": "b"}, {"value": NEGATIVE}),
    *[
        Target(
            "inference",
            call,
            {"hierarchy": TWO, "x": np.array([0.4, -0.2, 0.7])},
            {
                "x": no_array(3),
                "clamp": st.one_of(
                    st.builds(dict, st.just([(7, np.zeros(2))])),
                    st.builds(lambda a: {1: a}, no_array(2)),
                ),
            },
        )
        for call in MAPS
    ],
    Target(
        "inference",
        inference.free_energy,
        {"hierarchy": TWO, "states": [np.zeros(3), np.zeros(2)]},
        {"states": st.sampled_from([[], [np.zeros(3)], [np.zeros(3), np.zeros(4)], [1.0, 2.0]])},
    ),
    Target("inference", nonlinearity, {"which": "tanh"}, {"which": NO_NAME}),
    Target("inference", soft_threshold, {"lam": 0.7}, {"lam": NEGATIVE}),
    Target("inference", power, {"n": 2.0}, {"n": NOT_POSITIVE}),
]

DATA = np.random.default_rng(0).normal(size=(50, 4))
FLOWS = [
    Target(
        "flows",
        lambda data, **options: Whitening(**options).fit(data),
        {"data": DATA},
        {
            "data": no_array(50, 4).filter(lambda d: len(shape_of(d) or ()) < 2),
            "kind": NO_NAME,
            "ridge": NEGATIVE,
        },
    ),
    Target(
        "flows",
        lambda x: Whitening().fit(DATA).forward(x),
        {"x": DATA},
        {"x": no_array(4)},
    ),
    Target(
        "flows",
        lambda order: TemporalAR(order=order).fit(DATA),
        {"order": 2},
        {"order": NO_COUNT},
    ),
    Target(
        "flows",
        lambda x, **options: Normalization(**options).forward(x),
        {"x": np.full((2, 4), 0.7), "weights": np.full((4, 4), 0.2)},
        {
            "x": no_array(4),
            "weights": no_array(4, 4),
            "semisaturation": NOT_POSITIVE,
            "exponent": NOT_POSITIVE,
            "gain": NOT_POSITIVE,
        },
    ),
]

FILTERS = [
    Target(
        "filters",
        filters.gabor,
        {"shape": (8, 9)},
        {
            "shape": NO_SHAPE,
            "x": NOT_REAL,
            "sigma": NOT_POSITIVE,
            "frequency": NEGATIVE,
            "orientation": NOT_REAL,
            "phase": NOT_REAL,
            "aspect": NOT_POSITIVE,
        },
    ),
    Target(
        "filters",
        filters.difference_of_gaussians,
        {"size": 9},
        {"sigma_center": NOT_POSITIVE, "sigma_surround": NOT_POSITIVE, "weight": NOT_REAL},
    ),
    Target(
        "filters",
        filters.gaussian_window,
        {"shape": (8, 9), "sigma": 2.0},
        {"shape": NO_SHAPE, "sigma": NOT_POSITIVE},
    ),
]


@dataclass(frozen=True, kw_only=True)
class Pair(Circuit):
    """Two populations whose every part can be broken."""

    changes: Any = None
    wiring: Any = None

    @property
    def populations(self) -> tuple[Population, ...]:
        changes = self.changes or {}
        first = Population("first", Leaky(0.02), 4, 0, "input")
        return (
            replace(first, **changes),
            Population("second", Leaky(0.03), 3, 1, "output"),
        )

    @property
    def projections(self) -> tuple[Projection, ...]:
        wiring = {"source": "first", "target": "second", "weights": np.full((3, 4), 0.2)}
        wiring = {"port": "drive", **wiring, **(self.wiring or {})}
        return (Projection("stimulus", "first", port="drive"), Projection(**wiring))


def run_pair(**fields: Any) -> Any:
    """Run the circuit; its parts are checked then."""
    return Pair(**fields).run(STIMULUS)


CIRCUITS = [
    Target(
        "circuits",
        run_pair,
        {},
        {
            "dt": NOT_POSITIVE,
            "integrator": NO_NAME,
            "record_dt": NOT_POSITIVE.filter(lambda v: v is not None),
        },
    ),
    Target(
        "circuits",
        lambda **changes: run_pair(changes=changes),
        {},
        {
            "name": st.sampled_from(["second", "stimulus", "", 3]),
            "size": NO_COUNT,
            "level": st.one_of(st.integers(max_value=-1), st.floats()),
            "population": NO_NAME,
            "x": no_array(4).filter(lambda a: shape_of(a) != (4,)),
            "noise": NEGATIVE,
        },
    ),
    Target(
        "circuits",
        lambda **wiring: run_pair(wiring=wiring),
        {},
        {
            "source": NO_NAME,
            "target": NO_NAME,
            "port": NO_NAME,
            "reads": NO_NAME,
            "gate": NO_NAME.filter(lambda name: name is not None),
            "sign": NOT_REAL,
            "delay": NEGATIVE,
            "weights": no_array(3, 4),
        },
    ),
    Target(
        "circuits",
        lambda kind: run_pair(changes={"kind": kind}),
        {"kind": Leaky(0.02)},
        {
            "kind": st.one_of(
                st.builds(Leaky, tau=NOT_POSITIVE),
                st.builds(Leaky, st.just(0.02), threshold=NOT_REAL),
                st.builds(lambda name: Leaky(0.02, nonlinearity=name), NO_NAME),
                st.builds(DivisiveNormalization, semisaturation=NOT_POSITIVE),
                st.builds(DivisiveNormalization, exponent=NOT_POSITIVE),
                st.builds(TemporalRelay, tau_trace=NOT_POSITIVE),
                st.builds(Error, st.just(0.02), variance=NEGATIVE),
                st.builds(lambda p: Error(None, precision=p), no_precision(4)),
                st.builds(Latent, tau=NOT_POSITIVE),
                st.sampled_from([None, "leaky", 3]),
            )
        },
    ),
    Target(
        "circuits",
        lambda stimulus, record=None: Pair().run(stimulus, record=record),
        {"stimulus": STIMULUS},
        {
            "stimulus": st.sampled_from(
                [
                    STIMULUS.values,
                    STIMULUS.isel(feature=[0, 1]),
                    STIMULUS.isel(trial=[]),
                    STIMULUS.where(STIMULUS.trial == 0),
                    STIMULUS.drop_vars("condition"),
                    IMAGES,
                    3,
                ]
            ),
            "record": st.lists(NO_NAME, min_size=1, max_size=2),
        },
    ),
    Target(
        "circuits",
        lambda **options: settle(Pair(), STIMULUS.isel(time=[0]), **options),
        {},
        {"tol": NOT_POSITIVE, "max_time": NOT_POSITIVE, "record": st.just(["third"])},
    ),
]
