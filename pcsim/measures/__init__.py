"""Measures: pure functions from responses to labelled numbers, by label only.

Receptive fields and their shape and fits, tuning curves and their indices, contrast response
functions, latency and transience, sparseness, spectra. Labels of the units stay on every result.
"""

from __future__ import annotations

from pcsim.measures.autoregression import (
    Autoregression,
    fit_autoregression,
    parametric_granger,
)
from pcsim.measures.contrast import fit_naka_rushton, naka_rushton, naka_rushton_jacobian
from pcsim.measures.field_fit import fit_difference_of_gaussians, fit_gabor
from pcsim.measures.field_shape import (
    annulus_depth,
    locality,
    neighbour_asymmetry,
    radial_profile,
)
from pcsim.measures.granger import (
    directed_asymmetry,
    pair_granger,
    power_drift,
    spectral_factor,
    spectral_granger,
)
from pcsim.measures.lfp import lfp_proxy
from pcsim.measures.multitaper import (
    Tapers,
    chance_coherence,
    coherence,
    cross_spectrum,
    multitaper_spectrum,
)
from pcsim.measures.rates import condition_mean, mean_rate, rectified
from pcsim.measures.receptive_field import (
    least_squares_receptive_field,
    response_triggered_average,
)
from pcsim.measures.selectivity import (
    circular_selectivity,
    direction_selectivity,
    orientation_selectivity,
)
from pcsim.measures.sparseness import (
    half_max_share,
    lifetime_sparseness,
    population_sparseness,
    treves_rolls,
)
from pcsim.measures.spectra import (
    power_spectrum,
    spatial_power_spectrum,
    spectral_slope,
    spectral_variation,
)
from pcsim.measures.subunit_models import (
    cross_validated_r2,
    fit_point_neuron,
    fit_two_layer,
)
from pcsim.measures.surrogates import phase_randomised
from pcsim.measures.temporal import latency, transience_index
from pcsim.measures.tuning import (
    end_stopping_index,
    half_width,
    optimal_value,
    peak_and_plateau,
    suppression_index,
    tuning_curve,
)

__all__ = [
    "Autoregression",
    "Tapers",
    "annulus_depth",
    "chance_coherence",
    "circular_selectivity",
    "coherence",
    "condition_mean",
    "cross_spectrum",
    "cross_validated_r2",
    "directed_asymmetry",
    "direction_selectivity",
    "end_stopping_index",
    "fit_autoregression",
    "fit_difference_of_gaussians",
    "fit_gabor",
    "fit_naka_rushton",
    "fit_point_neuron",
    "fit_two_layer",
    "half_max_share",
    "half_width",
    "latency",
    "least_squares_receptive_field",
    "lfp_proxy",
    "lifetime_sparseness",
    "locality",
    "mean_rate",
    "multitaper_spectrum",
    "naka_rushton",
    "naka_rushton_jacobian",
    "neighbour_asymmetry",
    "optimal_value",
    "orientation_selectivity",
    "pair_granger",
    "parametric_granger",
    "peak_and_plateau",
    "phase_randomised",
    "population_sparseness",
    "power_drift",
    "power_spectrum",
    "radial_profile",
    "rectified",
    "response_triggered_average",
    "spatial_power_spectrum",
    "spectral_factor",
    "spectral_granger",
    "spectral_slope",
    "spectral_variation",
    "suppression_index",
    "transience_index",
    "treves_rolls",
    "tuning_curve",
]
