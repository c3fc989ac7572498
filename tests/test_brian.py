"""The Brian 2 engine: the same steps as the array engine, noise, and manners towards its host."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest
import xarray as xr

from pcsim.brian import run_brian
from pcsim.circuit import Circuit, Population, Projection, simulate
from pcsim.kinds import DivisiveNormalization, Error, Latent, Leaky, Prediction
from pcsim.nonlinearity import Nonlinearity
from pcsim.priors import GaussianPrior
from pcsim.responses import stimulus_array

WEIGHTS = np.array([[0.9, -0.4], [0.3, 0.0], [-0.7, 0.5]])


@dataclass(frozen=True, kw_only=True)
class Everything(Circuit):
    """Gates, delays, full precisions, populations that follow at once, noise."""

    delay: float = 0.0
    noise: float = 0.0
    weights: np.ndarray = dataclasses.field(default_factory=lambda: WEIGHTS)

    @property
    def populations(self):
        precision = np.array([[2.0, 0.3], [0.3, 0.7]])
        latent = Latent(0.02, inner="tanh", prior=GaussianPrior(0.3, precision))
        return (
            Population("mu", latent, 2, 1, "latent", noise=self.noise),
            Population("xi", Error(tau=None, precision=0.7), 3, 0, "weighted_error"),
            Population("prediction", Prediction(outer="tanh"), 3, 0, "prediction"),
            Population("pool", Leaky(0.03, "square", threshold=0.1), 3, 0, "interneuron"),
            Population("ratio", DivisiveNormalization(0.02, 0.7, 2.5, 4.0), 3, 1, "output"),
        )

    @property
    def projections(self):
        up = np.swapaxes(self.weights, -1, -2)
        return (
            Projection("stimulus", "xi", port="observed"),
            Projection("stimulus", "xi", port="observed", delay=self.delay, sign=-0.3),
            Projection("mu", "prediction", self.weights),
            Projection("prediction", "xi", port="predicted", delay=self.delay),
            Projection("xi", "mu", up, port="ascending", gate="prediction", delay=self.delay),
            Projection("xi", "mu", 0.1 * up, port="ascending"),
            Projection("mu", "mu", port="lateral", reads="rate", sign=-0.2),
            Projection("xi", "pool", port="drive"),
            Projection("pool", "ratio", np.full((3, 3), 0.3), port="pool"),
            Projection("prediction", "ratio", port="drive"),
            Projection("stimulus", "ratio", np.zeros((3, 3)), port="drive"),
        )


def frames(rng, n_trials=3, n_frames=4):
    return stimulus_array(rng.normal(size=(n_trials, n_frames, 3)), frame_duration=0.02)


@pytest.mark.parametrize("delay", [0.0, 0.007])
@pytest.mark.parametrize("record_dt", [None, 0.02])
def test_brian_takes_the_steps_of_the_array_engine(rng, delay, record_dt):
    stimulus = frames(rng)
    circuit = Everything(delay=delay, record_dt=record_dt, integrator="euler")
    ours, theirs = simulate(circuit, stimulus), run_brian(circuit, stimulus)
    np.testing.assert_allclose(theirs.rate.values, ours.rate.values, rtol=1e-11, atol=1e-13)
    xr.testing.assert_equal(ours.coords.to_dataset(), theirs.coords.to_dataset())


def test_some_populations_and_another_time_step(rng):
    stimulus = frames(rng)
    circuit = Everything(record_dt=0.02, delay=0.004, integrator="euler")
    theirs = run_brian(circuit, stimulus, dt=5e-4, record=["ratio", "mu"])
    finer = dataclasses.replace(circuit, dt=5e-4)
    ours = simulate(finer, stimulus, record=["mu", "ratio"])
    np.testing.assert_allclose(theirs.rate.values, ours.rate.values, rtol=1e-11, atol=1e-13)
    assert theirs.attrs["dt"] == 5e-4


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("cc") is None, reason="cython needs a compiler")
def test_cython_is_numpy(rng):
    @dataclass(frozen=True, kw_only=True)
    class Recurrent(Circuit):
        @property
        def populations(self):
            return (Population("u", Leaky(0.02, "tanh"), 3, 0, "output"),)

        @property
        def projections(self):
            return (Projection("stimulus", "u", np.eye(3) + 0.3, port="drive"),)

    stimulus = frames(rng)
    numpy, cython = (run_brian(Recurrent(), stimulus, target=t) for t in ("numpy", "cython"))
    np.testing.assert_allclose(cython.rate.values, numpy.rate.values, rtol=1e-12, atol=1e-13)


def test_noise_has_the_spread_that_was_asked_for_and_its_seed():
    @dataclass(frozen=True, kw_only=True)
    class Noisy(Circuit):
        @property
        def populations(self):
            return (Population("u", Leaky(0.01), 50, 0, "output", noise=0.4),)

        @property
        def projections(self):
            return ()

    stimulus = stimulus_array(np.zeros((200, 1, 1)), frame_duration=0.1)
    circuit = Noisy(dt=5e-4, record_dt=0.1)
    rate = run_brian(circuit, stimulus, seed=3).rate.values
    # 10,000 units; at this dt Euler-Maruyama is 2.6 % wider in variance than the process.
    assert abs(rate.var() / 0.4**2 - 1.026) < 4 * np.sqrt(2 / rate.size)
    np.testing.assert_array_equal(run_brian(circuit, stimulus, seed=3).rate.values, rate)
    assert not np.array_equal(run_brian(circuit, stimulus, seed=4).rate.values, rate)


def test_global_random_stream_and_preferences_are_put_back(rng):
    brian2 = pytest.importorskip("brian2")
    np.random.seed(7)  # noqa: NPY002
    expected = np.random.random()  # noqa: NPY002
    np.random.seed(7)  # noqa: NPY002
    brian2.prefs.codegen.target = "auto"
    run_brian(Everything(noise=0.1), frames(rng))
    assert np.random.random() == expected  # noqa: NPY002
    assert brian2.prefs.codegen.target == "auto"


OFF_MAIN = """
import threading
import numpy as np
from pcsim.circuits.bogacz_2017 import MODEL
from pcsim.brian import run_brian
from pcsim.responses import stimulus_array

def work():
    light = stimulus_array(np.full((1, 1, 1), 2.0), frame_duration=0.4)
    print(run_brian(MODEL, light, record=["mu_1"]).rate.values[0, -1, 0].round(3))

thread = threading.Thread(target=work)
thread.start()
thread.join()
import signal
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
"""


def test_first_import_works_off_the_main_thread():
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", OFF_MAIN],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout.strip() == "1.567", done.stderr


def test_brian_is_not_imported_before_it_is_used():
    code = "import sys, pcsim.brian; assert 'brian2' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_without_brian_the_message_says_how_to_install_it(rng, monkeypatch):
    monkeypatch.setitem(sys.modules, "brian2", None)
    with pytest.raises(ImportError, match=r"pip install 'pcsim\[brian\]'"):
        run_brian(Everything(), frames(rng))


def test_what_cannot_run_is_refused(rng, refused):
    stimulus = frames(rng)
    assert "Did you mean 'cython'?" in refused(run_brian, Everything(), stimulus, target="cpython")
    assert "dt" in refused(run_brian, Everything(), stimulus, dt=-1e-3)
    assert "Did you mean 'mu'?" in refused(run_brian, Everything(), stimulus, record=["muu"])
    stacked = Everything(weights=np.stack([WEIGHTS] * 2))
    assert "replica" in refused(run_brian, stacked, stimulus)


def test_nonlinearity_without_strings_is_refused(rng, refused):
    cube = Nonlinearity(name="cube", f=lambda u, xp: u**3, df=lambda u, xp: 3 * u**2)

    @dataclass(frozen=True, kw_only=True)
    class Cubic(Circuit):
        @property
        def populations(self):
            return (Population("units", Leaky(0.02, cube), 3, 0, "output"),)

        @property
        def projections(self):
            return (Projection("stimulus", "units", port="drive"),)

    simulate(Cubic(), frames(rng))
    assert "brian=" in refused(run_brian, Cubic(), frames(rng))


def test_divergence_is_told():
    @dataclass(frozen=True, kw_only=True)
    class Unstable(Circuit):
        @property
        def populations(self):
            return (Population("u", Leaky(0.01), 1, 0, "output"),)

        @property
        def projections(self):
            return (
                Projection("stimulus", "u", port="drive"),
                Projection("u", "u", port="drive", sign=40.0),
            )

    stimulus = stimulus_array(np.ones((1, 1, 1)), frame_duration=2.0)
    with pytest.raises(RuntimeError, match="smaller dt"):
        run_brian(Unstable(), stimulus)
