"""H02, H03 and H19 on signals whose answer is known, and on small circuits."""

from __future__ import annotations

import importlib
from dataclasses import replace

import numpy as np
import pytest

from pcsim import catalog
from pcsim.model import lesion
from pcsim.responses import make_responses

decorrelation = importlib.import_module("pcsim.analysis.output_decorrelation")
noise = importlib.import_module("pcsim.analysis.surround_and_noise")
onset = importlib.import_module("pcsim.analysis.onset_transients")
RETINA = catalog.load("circuits", "retina_srinivasan_1982")


def test_squared_correlations_are_free_of_chance(rng):
    # Pairs of correlation 0.6 and 0; over 200 trials chance adds 1/200 to the square of the latter.
    found = []
    for _ in range(200):
        shared = rng.standard_normal((200, 1))
        pair = np.sqrt(0.6) * shared + np.sqrt(0.4) * rng.standard_normal((200, 2))
        stage = np.concatenate([pair, rng.standard_normal((200, 1))], axis=1)
        found.append(decorrelation.squared_correlations(stage, np.ones(3, dtype=bool)))
    mean = np.mean(found, axis=0)
    assert (np.diagonal(mean) == 0).all()
    # Standard errors over 200 draws: 0.004 and 0.0005.
    assert mean[0, 1] == pytest.approx(0.36, abs=0.016)
    assert mean[0, 2] == pytest.approx(0.0, abs=0.002)


def test_spectrum_over_places_is_flat_for_white_units_and_steep_for_blurred(rng):
    rows, columns = np.indices((9, 9)).reshape(2, -1)
    place = ((columns - 4) / 16, (4 - rows) / 16)
    alive = np.ones(81, dtype=bool)
    white = decorrelation.place_spectrum(rng.standard_normal((4000, 81)), place, alive)
    # Each of 6 x 8 waves has 4000 exponential draws: a standard error of 1.6 % at most.
    np.testing.assert_allclose(white, 1.0, atol=0.07)
    blur = np.kron(decorrelation.gaussian_rows(9, 1.0), decorrelation.gaussian_rows(9, 1.0))
    blurred = decorrelation.place_spectrum(rng.standard_normal((500, 81)) @ blur.T, place, alive)
    assert (np.diff(blurred) < 0).all()


def test_a_retina_decorrelates_and_its_pixels_do_not():
    # The retina of the textured scene, and its own pixels as a control.
    seen = decorrelation.observe(RETINA, seed=3, scale="quick")
    pixels = decorrelation.observe(decorrelation.Centre(RETINA), seed=3, scale="quick")
    effects = []
    for one in (seen, pixels):
        means = {stage: float(one[stage][one["included"]].mean()) for stage in decorrelation.STAGES}
        effects.append(float(decorrelation.decorrelation(means)))
    assert effects[0] > 0.5
    assert abs(effects[1]) < 0.05
    np.testing.assert_allclose(pixels["input"], pixels["linear"], atol=1e-12)


def test_rank_correlation_is_one_for_any_order_and_zero_for_none():
    falling = np.array([-9.0, -7.0, -3.0, -2.0, -1.0, 0.0])
    found = noise.rank_correlation(np.stack([falling, -falling, np.full(6, 0.7)]))
    np.testing.assert_allclose(found, [-1.0, 1.0, 0.0], atol=1e-12)


def test_fields_are_those_of_the_filter(rng):
    seen = noise.observe(RETINA, seed=0, scale="quick")
    ratio = 3.0
    circuit = replace(RETINA, ridge=1 / ratio)
    # At rest the outputs are the inverse of the inhibition; log luminance has slope 1 / 0.51.
    inverse = np.linalg.inv(circuit.inhibition)
    middle = 6 * 13 + 6
    field = seen["field"].sel(ratio=ratio).isel(unit=4).to_numpy()
    expected = inverse[middle].reshape(13, 13)
    np.testing.assert_allclose(field / field.max(), expected / expected.max(), atol=1e-3)
    assert (np.diff(seen["depth_theory"]) > 0).all()


def test_only_a_retina_with_noise_can_be_asked():
    assert noise.missing(RETINA) == ""
    assert noise.missing(catalog.load("circuits", "visual_pathway")) == ""
    assert "cannot be set" in noise.missing(catalog.load("circuits", "rao_ballard_1999"))
    assert "no images" in noise.missing(catalog.load("circuits", "bogacz_2017"))


def steps(courses, **labels):
    """Responses of 0.9 s to one flash and one switch: rates on the time grid of the protocol."""
    time = onset.STEP * np.arange(1, 226)
    rate = np.stack([[course(time) for course in row] for row in courses]).transpose(0, 2, 1)
    units = {"population": "error", "level": 1, **labels}
    return make_responses(rate, time=time, units=units, trial={"condition": ["flash", "switch"]})


def test_transience_and_lag_of_known_courses():
    def decay(t):
        return np.exp(-t / 0.02)

    def held(t):
        return 0.0 * t + 0.7

    def turned(t):
        # On 20 ms after the switch, off 8 ms after the switch back.
        return 4.0 * ((t > 0.3201) & (t < 0.6079)) - 0.7

    found = onset.transients(steps([[decay, held], [turned, turned]]))
    high, low = np.exp(-onset.STEP / 0.02), np.exp(-onset.STEP * np.arange(38, 61) / 0.02).mean()
    np.testing.assert_allclose(found["index"], [(high - low) / (high + low), 0.0], atol=1e-12)
    np.testing.assert_allclose(found["onset_after_offset"], 0.012, atol=onset.STEP + 1e-9)
    assert found["included"].all()


def test_errors_of_a_circuit_without_feedback_are_its_estimates():
    model = lesion(catalog.load("circuits", "visual_pathway"), feedback_gain=0.0)
    seen, _ = onset.observe(model, seed=1, scale="quick")
    assert float(seen["index"].mean()) == pytest.approx(float(seen["estimate"][0]), abs=1e-9)
