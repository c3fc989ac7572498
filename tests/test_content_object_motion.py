"""The object-motion sensitive circuit against balance, symmetry and the linear pool's blindness."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pcsim import catalog
from pcsim.brian import run_brian
from pcsim.circuit import settle
from pcsim.stimuli import jittered_gratings
from pcsim.stimulus import stimulus_array

OMS = catalog.load("circuits", "olveczky_2003")
H07 = catalog.load("analysis", "object_motion")
PERIOD = 5.0 / 16.0
MIDDLE = 4
"""Number of the ganglion cell in the middle."""


def named(responses, name):
    rate = responses["rate"].transpose("trial", "time", "unit")
    return rate.isel(unit=(rate["name"] == name).values).to_numpy()


def jitter(motion, **changes):
    given = {"n_frames": 100, "frame_duration": 0.016, "step": PERIOD / 20, "seed": 6, **changes}
    return jittered_gratings(
        (56, 56), motion=motion, spatial_frequency=1 / PERIOD, center_diameter=1.0, **given
    )


def step(value=0.8, disc=None):
    """Return 0.1 s of grey and 0.9 s of a brighter field, or of a brighter disc on grey."""
    values = np.full((1, 2, 56, 56), 0.5)
    rows, columns = np.indices((56, 56)) - 27.5
    values[0, 1, np.hypot(rows, columns) < (99 if disc is None else disc)] = value
    stimulus = stimulus_array(
        np.repeat(values, [1, 9], axis=1), frame_duration=0.1, px_per_deg=16.0
    )
    return stimulus


def test_pools_are_averages_that_do_not_overlap():
    near, far = OMS.pools
    np.testing.assert_allclose(near.sum(axis=1), 1.0, rtol=1e-12)
    np.testing.assert_allclose(far.sum(axis=1), 1.0, rtol=1e-12)
    # A Gaussian holds exp(-9 / 2) beyond three sigma, on a coarse mosaic a little more.
    assert (near * (far > 0)).sum(axis=1).max() < 1.2 * np.exp(-4.5)


def test_a_full_field_step_adds_nothing_to_a_balanced_cell():
    responses = OMS.run(step())
    excitation = named(responses, "subunit")[0] @ OMS.pools[0].T
    inhibition = named(responses, "amacrine")[0]
    assert excitation.sum() > 1.0
    np.testing.assert_allclose(inhibition.sum(axis=0), excitation.sum(axis=0), rtol=1e-3)
    # Without delays of the inhibition but for a time step, nothing is left of it at any moment.
    at_once = replace(OMS, delay=0.0, tau_amacrine=1e-5, dt=4e-4)
    peak = named(at_once.run(step()), "ganglion").max()
    alone = named(at_once.run(step(disc=8.0)), "ganglion").max()
    assert alone > 0.05
    assert peak < 0.05 * alone


def test_a_still_image_leaves_nothing_at_rest(rng):
    image = np.clip(rng.normal(0.5, 0.2, (1, 1, 56, 56)), 0, 1)
    rest = settle(OMS, stimulus_array(image, frame_duration=0.1, px_per_deg=16.0), tol=1e-9)
    np.testing.assert_allclose(rest["rate"].values, 0.0, atol=1e-8)


def test_both_engines_take_the_same_steps_and_end_at_rest():
    stimulus = jitter("differential", n_frames=4)
    circuit = replace(OMS, integrator="euler", record_dt=0.016)
    ours, theirs = circuit.run(stimulus), run_brian(circuit, stimulus)
    np.testing.assert_allclose(theirs["rate"], ours["rate"], rtol=1e-9, atol=1e-12)
    still = step().isel(time=slice(1, 7)).assign_coords(time=0.1 * np.arange(6))
    late = run_brian(replace(OMS, record_dt=0.6), still, record=["ganglion", "amacrine"])
    np.testing.assert_allclose(late["rate"].values, 0.0, atol=1e-3)


def test_a_linear_pool_passes_what_the_transfer_of_its_gaussians_says():
    columns = np.indices((56, 56))[1].ravel() - 27.5
    near, far = OMS.pools
    for phase in (0.0, 1.1):
        grating = np.cos(2 * np.pi * columns / 8.0 + phase)
        seen = near @ (OMS.subunit_fields @ grating)
        x = 16.0 * OMS.populations[2].x
        gain = np.exp(-2 * np.pi**2 * (1.0**2 + 2.5**2) / 8.0**2)
        np.testing.assert_allclose(seen, gain * np.cos(2 * np.pi * x / 8.0 + phase), atol=0.01)
        assert np.abs(far @ (OMS.subunit_fields @ grating)).max() < 0.05


def test_directions_a_quarter_turn_apart_are_alike():
    stimulus = jitter("differential", direction=0.3, n_frames=40)
    turned = stimulus.copy(data=np.rot90(stimulus.to_numpy(), axes=(2, 3)))
    rates = [named(OMS.run(one, record=["ganglion"]), "ganglion") for one in (stimulus, turned)]
    np.testing.assert_allclose(rates[1][..., MIDDLE], rates[0][..., MIDDLE], rtol=1e-9, atol=1e-14)
    other = jitter("differential", direction=0.3 + np.pi / 2, n_frames=40)
    found = named(OMS.run(other, record=["ganglion"]), "ganglion")
    np.testing.assert_allclose(found[..., MIDDLE], rates[0][..., MIDDLE], rtol=1e-7, atol=1e-12)


def test_background_that_moves_along_silences_the_cell_and_alone_does_not_drive_it():
    motions = ["global", "differential", "center", "background"]
    shown = jitter(motions, phase=0.7)
    rate = named(replace(OMS, record_dt=0.016).run(shown, record=["ganglion"]), "ganglion")
    together, apart, center, background = rate[:, 20:].mean(axis=(1, 2))
    assert together < 0.5 * apart < 0.5 * center
    assert background < 0.1 * center
    # Without inhibition the background hardly matters.
    free = replace(OMS, inhibition=0.0, record_dt=0.016).run(shown, record=["ganglion"])
    free = named(free, "ganglion")[:, 20:].mean(axis=(1, 2))
    np.testing.assert_allclose(free[:3], free[2], rtol=0.05)


def test_index_and_variation_are_those_of_their_formulas():
    apart = np.array([[3.0, 0.7], [1.0, 0.7]])
    together = np.array([[1.0, 0.7], [1.0, 4.0 - 0.7]])
    module = H07.observe.__globals__
    found = module["evidence"](np.stack([together, apart]))
    np.testing.assert_allclose(found["omsi"][1], [2 / 6, (1.4 - 4.0) / 5.4])
    # Indices 1/2 and 0: mean 1/4, standard deviation 1/4.
    np.testing.assert_allclose(found["cv"][1][0], 1.0)
    assert found["included"][1].all()


def test_width_is_that_of_the_pool():
    width = H07.observe.__globals__["width"]
    linear = replace(OMS, rectified=False)
    sigma = width(linear, 0, "error", seed=3)
    # Of a Gaussian of 2.5 px behind one of 1 px; squares of 2 px, noise and the cut-off of small
    # energy blur or narrow it.
    assert 16.0 * sigma == pytest.approx(np.hypot(2.5, 1.0), rel=0.2)


def test_hypothesis_tells_rectified_from_linear_subunits():
    found = H07.observe(OMS, seed=1, scale="quick")
    plain = H07.observe(replace(OMS, rectified=False), seed=1, scale="quick")
    assert found["included"].values.all()
    assert float(found["omsi"].min()) > 0.2 > float(plain["omsi"].mean())
