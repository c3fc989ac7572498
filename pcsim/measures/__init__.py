"""Measures: pure functions from responses to labelled numbers, by label only.

Receptive fields and their shape and fits, tuning curves and their indices, contrast response
functions, latency and transience, sparseness, spectra, similarity (RSA, CKA, shape), encoding,
correlations and curvature. Labels of the units stay on every result.
"""

from __future__ import annotations

from pcsim.measures.alignment import linear_cka, procrustes_distance, shape_distance
from pcsim.measures.autoregression import (
    Autoregression,
    fit_autoregression,
    parametric_granger,
)
from pcsim.measures.bursts import burst_latencies, burst_onsets, log_slope, spectral_peak
from pcsim.measures.contrast import fit_naka_rushton, naka_rushton, naka_rushton_jacobian
from pcsim.measures.correlations import (
    noise_correlation,
    noise_correlation_matrix,
    noise_signal_correlation,
    signal_correlation,
    signal_correlation_matrix,
)
from pcsim.measures.curve_fit import bootstrap_curve_fit, curve_values, fit_curve
from pcsim.measures.curve_models import CURVES, CurveModel
from pcsim.measures.encoding import (
    Encoding,
    contiguous_folds,
    noise_corrected_variance,
    ridge_encoding,
    signal_power,
)
from pcsim.measures.field_fit import fit_difference_of_gaussians, fit_gabor
from pcsim.measures.field_shape import (
    annulus_depth,
    locality,
    neighbour_asymmetry,
    radial_profile,
)
from pcsim.measures.geometry import cross_validated_curvature, curvature
from pcsim.measures.granger import (
    directed_asymmetry,
    pair_granger,
    power_drift,
    spectral_factor,
    spectral_granger,
)
from pcsim.measures.information import (
    ShuffledInformation,
    binary_words,
    entropy,
    gaussian_information,
    joint_count,
    mutual_information,
    shuffle_corrected_information,
)
from pcsim.measures.kernel_shape import (
    biphasic_index,
    separable_parts,
    space_time_separability,
)
from pcsim.measures.lfp import lfp_proxy
from pcsim.measures.multitaper import (
    Tapers,
    chance_coherence,
    coherence,
    cross_spectrum,
    multitaper_spectrum,
)
from pcsim.measures.predictive_information import (
    canonical_correlations,
    gaussian_bottleneck,
    gaussian_predictive_information,
    predictive_information,
)
from pcsim.measures.rates import condition_mean, mean_rate, rectified
from pcsim.measures.rdm import (
    condition_crossnobis,
    condition_rdm,
    correlation_rdm,
    crossnobis_rdm,
    euclidean_rdm,
    noise_precision,
    rdm_matrix,
    rdm_vector,
)
from pcsim.measures.receptive_field import (
    least_squares_receptive_field,
    response_triggered_average,
)
from pcsim.measures.rsa import compare_rdms, noise_ceiling, pseudovalues
from pcsim.measures.rsa_bootstrap import RsaBootstrap, bootstrap_rsa, resample_indices
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
from pcsim.measures.spike_prediction import (
    bits_per_spike,
    cross_validated_bits,
    lagged,
    poisson_ridge,
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
    "CURVES",
    "Autoregression",
    "CurveModel",
    "Encoding",
    "RsaBootstrap",
    "ShuffledInformation",
    "Tapers",
    "annulus_depth",
    "binary_words",
    "biphasic_index",
    "bits_per_spike",
    "bootstrap_curve_fit",
    "bootstrap_rsa",
    "burst_latencies",
    "burst_onsets",
    "canonical_correlations",
    "chance_coherence",
    "circular_selectivity",
    "coherence",
    "compare_rdms",
    "condition_crossnobis",
    "condition_mean",
    "condition_rdm",
    "contiguous_folds",
    "correlation_rdm",
    "cross_spectrum",
    "cross_validated_bits",
    "cross_validated_curvature",
    "cross_validated_r2",
    "crossnobis_rdm",
    "curvature",
    "curve_values",
    "directed_asymmetry",
    "direction_selectivity",
    "end_stopping_index",
    "entropy",
    "euclidean_rdm",
    "fit_autoregression",
    "fit_curve",
    "fit_difference_of_gaussians",
    "fit_gabor",
    "fit_naka_rushton",
    "fit_point_neuron",
    "fit_two_layer",
    "gaussian_bottleneck",
    "gaussian_information",
    "gaussian_predictive_information",
    "half_max_share",
    "half_width",
    "joint_count",
    "lagged",
    "latency",
    "least_squares_receptive_field",
    "lfp_proxy",
    "lifetime_sparseness",
    "linear_cka",
    "locality",
    "log_slope",
    "mean_rate",
    "multitaper_spectrum",
    "mutual_information",
    "naka_rushton",
    "naka_rushton_jacobian",
    "neighbour_asymmetry",
    "noise_ceiling",
    "noise_corrected_variance",
    "noise_correlation",
    "noise_correlation_matrix",
    "noise_precision",
    "noise_signal_correlation",
    "optimal_value",
    "orientation_selectivity",
    "pair_granger",
    "parametric_granger",
    "peak_and_plateau",
    "phase_randomised",
    "poisson_ridge",
    "population_sparseness",
    "power_drift",
    "power_spectrum",
    "predictive_information",
    "procrustes_distance",
    "pseudovalues",
    "radial_profile",
    "rdm_matrix",
    "rdm_vector",
    "rectified",
    "resample_indices",
    "response_triggered_average",
    "ridge_encoding",
    "separable_parts",
    "shape_distance",
    "shuffle_corrected_information",
    "signal_correlation",
    "signal_correlation_matrix",
    "signal_power",
    "space_time_separability",
    "spatial_power_spectrum",
    "spectral_factor",
    "spectral_granger",
    "spectral_peak",
    "spectral_slope",
    "spectral_variation",
    "suppression_index",
    "transience_index",
    "treves_rolls",
    "tuning_curve",
]
