"""H42 and H43: images and cells of others, on disk; what is done where they are not."""

from __future__ import annotations

import importlib
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from pcsim import catalog, neural
from pcsim.contract import check_hypothesis
from pcsim.experiment import run_experiment
from pcsim.experiment_battery import battery_pieces, judge_piece, observe_piece
from pcsim.experiment_exclusions import read_exclusions
from pcsim.measures import bootstrap_rsa, compare_rdms, pseudovalues, rdm_matrix, resample_indices
from pcsim.model import lesion
from pcsim.report import write_report
from pcsim.responses import make_responses
from pcsim.roster import save_model
from pcsim.verdict import Outcome, read_csv

similarity = importlib.import_module("pcsim.analysis.object_similarity")
spikes = importlib.import_module("pcsim.analysis.spike_prediction")
LN = catalog.load("circuits", "linear_nonlinear")
BOTH = pytest.mark.parametrize("name", ["object_similarity", "spike_prediction"])


@pytest.fixture
def recordings():
    """Skip where the recordings are not at hand."""
    if reason := neural.absent_recordings(similarity.RECORDING, *spikes.RECORDINGS):
        pytest.skip(reason)
    return Path(os.environ["PCSIM_DATA"])


@dataclass(frozen=True)
class Copies:
    """Answers every image with itself, from units of one level and role."""

    level: int = 1
    gain: float = 0.7

    field_shape = (16, 16)
    px_per_deg = 16.0

    def run(self, stimulus: Any, *, seed: int = 0, record: Any = None) -> Any:
        rate = self.gain * (stimulus.values - 0.5).reshape(*stimulus.shape[:2], -1)
        time = stimulus["time"].values + float(stimulus["frame_duration"])
        rows, columns = np.indices((16, 16)).reshape(2, -1)
        units = {"population": "error", "level": self.level}
        place = {"x": (columns - 8) / 16.0, "y": (8 - rows) / 16.0}
        return make_responses(rate, time=time, units={**units, **place}, trial=stimulus)


# Without the recordings


@BOTH
def test_without_recordings_a_claim_is_not_applicable(name, monkeypatch, tmp_path):
    claim = catalog.load("analysis", name)
    for folder in (None, tmp_path):
        monkeypatch.delenv("PCSIM_DATA", raising=False)
        if folder is not None:
            monkeypatch.setenv("PCSIM_DATA", str(folder))
        verdict = claim.test([LN], train=lambda label, seed: LN, seeds=[0], label="LN")
        assert verdict.verdict == Outcome.NA
        assert verdict.reason.startswith("data absent: no ")
        assert claim.recordings[0] in verdict.reason
        assert ("which is not set" in verdict.reason) == (folder is None)
    assert check_hypothesis(claim) == []


@BOTH
def test_without_recordings_the_battery_goes_on(name, monkeypatch, tmp_path):
    monkeypatch.delenv("PCSIM_DATA", raising=False)
    claim = catalog.load("analysis", name)
    settings = {"hypotheses": [name], "models": ["LN", "RB"], "seeds": 3, "scale": "quick"}
    pieces = {piece.key: piece for piece in battery_pieces(settings)}
    assert not any(key.startswith("observe-control") for key in pieces)
    save_model(LN, tmp_path / "trained" / "model", "linear_nonlinear")
    needs = {}
    # LN serves as a control as well.
    for label in ("LN", "RB"):
        for seed in range(3):
            key = f"observe/{claim.id}/{label}/{seed}"
            needs[key] = tmp_path / label / str(seed)
            needs[key].mkdir(parents=True)
            observe_piece(needs[key], {"train": tmp_path / "trained"}, **pieces[key].kwargs)
            assert not (needs[key] / "evidence.nc").exists()
        judge_piece(tmp_path, needs, **pieces[f"judge/{claim.id}/{label}"].kwargs)
        (verdict,) = read_csv(tmp_path / "verdict.csv")
        assert verdict.verdict == Outcome.NA
        assert verdict.reason.startswith("data absent")


def test_a_folder_that_is_not_there_is_said(monkeypatch, tmp_path):
    monkeypatch.setenv("PCSIM_DATA", str(tmp_path))
    (tmp_path / "one").mkdir()
    assert neural.absent_recordings("one") == ""
    assert "no two in PCSIM_DATA" in neural.absent_recordings("one", "two")
    assert neural.recording_folder("one") == tmp_path / "one"
    with pytest.raises(RuntimeError, match="Set PCSIM_DATA to the folder that holds it"):
        neural.recording_folder("two")


# H42


def test_images_are_averaged_over_the_area_of_a_pixel(rng):
    weights = similarity.overlap(7, 3)
    np.testing.assert_allclose(weights.sum(axis=1), 1.0, atol=1e-12)
    # Each pixel counts as much as any other in all new ones together.
    np.testing.assert_allclose(weights.sum(axis=0), 3 / 7, atol=1e-12)
    expected = [[1, 1, 1 / 3, 0, 0, 0, 0], [0, 0, 2 / 3, 1, 2 / 3, 0, 0]]
    np.testing.assert_allclose(weights[:2], np.array(expected) * 3 / 7, atol=1e-12)


@pytest.mark.parametrize("field", [(32, 42), (16, 16), (13, 13), (40, 9)])
def test_windows_cover_the_image_on_grey(field):
    image = np.arange(48.0 * 48.0).reshape(1, 48, 48) + 10.0
    cut = similarity.windows(image, field)
    assert cut.shape[2:] == field
    assert set(cut.ravel().tolist()) - {0.5} == set(image.ravel().tolist())
    if field == (16, 16):
        assert cut.shape[1] == 9
        np.testing.assert_array_equal(cut[0, 4], image[0, 16:32, 16:32])
        np.testing.assert_array_equal(cut[0, 1], image[0, :16, 16:32])


def test_a_silent_pattern_is_unlike_all_others(rng):
    rates = rng.standard_normal((5, 12))
    rates[2] = 0.0
    matrix = rdm_matrix(similarity.dissimilarities(rates))
    np.testing.assert_allclose(np.delete(matrix[2], 2), 1.0)
    assert matrix[0, 1] == pytest.approx(1.0 - np.corrcoef(rates[0], rates[1])[0, 1], abs=1e-12)
    assert similarity.unvarying(rates).tolist() == [False, False, True, False, False]


def test_the_deepest_estimate_is_read():
    assert similarity.deepest(catalog.load("circuits", "rao_ballard_1999")) == (2, "latent")
    assert similarity.deepest(LN) == (1, "output")
    assert similarity.deepest(Copies()) == (1, "error")
    assert similarity.missing(catalog.load("circuits", "bogacz_2017")) == "it sees no images"


def test_the_published_numbers_come_out(recordings):
    found = similarity.published()
    human, monkey = found[similarity.HUMAN], found[similarity.MONKEY]
    # Computed earlier from the same bytes by other code: the battery's reference.
    assert compare_rdms(monkey, human).item() == pytest.approx(0.491, abs=5e-4)
    assert compare_rdms(found["HMAX"], human).item() == pytest.approx(0.216, abs=5e-4)
    assert compare_rdms(found["animacy"], human).item() == pytest.approx(0.577, abs=5e-4)
    values = pseudovalues(monkey, human)
    drawn = bootstrap_rsa(monkey, human, stimuli=resample_indices(92, 2000, seed=1))
    assert values.mean() == pytest.approx(0.491, abs=0.01)
    # The two agree to within a tenth; the published interval is 0.393 to 0.587.
    error = values.std(ddof=1) / np.sqrt(92)
    assert error == pytest.approx(drawn.draws.std(), rel=0.1)
    assert 2 * 1.96 * error == pytest.approx(0.587 - 0.393, rel=0.1)


def test_images_are_on_grey_and_as_the_experiment_had_them(recordings):
    images = neural.images_92(recordings / similarity.RECORDING)
    assert dict(images.sizes) == {"image": 92, "y": 175, "x": 175, "channel": 3}
    # The corners of an isolated object's photograph are background.
    corners = images.values[:, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert (np.median(corners, axis=0) == 128).all()
    names = images["category"].values
    assert sum("human" in name for name in names) >= 24
    small = similarity.shown_images(16.0)
    assert small.shape == (92, 48, 48)
    assert small.min() >= 0.0
    assert small.max() <= 1.0
    assert np.median(small) == pytest.approx(0.5, abs=1e-3)


def test_a_copy_of_the_image_is_as_good_as_its_pixels(recordings):
    copy = similarity.observe(Copies(), seed=0, scale="quick")
    pixels = similarity.observe(similarity.Pixels(Copies()), seed=0, scale="quick")
    for name in ("human", "monkey", "tau_a_human", "sessions"):
        np.testing.assert_allclose(copy[name], pixels[name], atol=1e-9)
    # Pixels carry next to nothing of objects.
    assert abs(float(pixels["human"].mean())) < 0.15
    silent = similarity.observe(Copies(gain=0.0), seed=0, scale="quick")
    assert not silent["included"].any()
    found = [(int(one["dropped_patterns"]), int(one["total_patterns"])) for one in (copy, silent)]
    assert found == [(0, 92), (92, 92)]


# H43


def test_segments_fill_what_follows_the_warm_up():
    one = spikes.Cell(np.arange(5000.0), np.zeros(5000), 0.004)
    before, first, length = spikes.segments(one)
    assert before == 500  # 2 s
    assert length * 0.004 == pytest.approx(spikes.SEGMENT, rel=0.3)
    np.testing.assert_array_equal(
        spikes.spikes(one), np.arange(before, before + length * first.size)
    )


def test_the_signal_of_a_model_lies_beside_the_spikes(rng):
    # A model that copies its input has the stimulus itself as its signal, bin by bin.
    checks = rng.choice([-1.0, 1.0], (900, 16, 16)).astype(np.float32)
    one = spikes.Cell(rng.poisson(0.7, 900).astype(float), checks, 0.0156)
    rate, shown = spikes.signal(Copies(), one, 0)
    before, first, length = spikes.segments(one)
    used = slice(first[0], first[-1] + length)
    expected = 0.7 * spikes.CONTRAST * checks[used].reshape(length * first.size, -1)
    np.testing.assert_allclose(rate, expected, atol=1e-6)
    nine = spikes.channels(rate, shown, one)
    middle = 0.7 * spikes.CONTRAST * spikes.middle(checks)[used]
    np.testing.assert_allclose(np.sort(nine, axis=1), np.sort(middle, axis=1), atol=1e-6)
    assert before == 90


def test_a_number_has_one_component_and_keeps_its_course(rng):
    values = rng.standard_normal(3000)
    one = spikes.Cell(rng.poisson(0.3, 3000).astype(float), values, 0.004)
    rate, shown = spikes.signal(Copies(), one, 0)
    found = spikes.channels(rate, shown, one)
    assert found.shape[1] == spikes.COMPONENTS
    _, first, length = spikes.segments(one)
    used = values[first[0] : first[-1] + length]
    assert abs(np.corrcoef(found[:, 0], used)[0, 1]) > 0.999
    assert found[:, 1:].std() < 0.01 * found[:, 0].std()


def test_a_shifted_model_answers_to_another_time(rng):
    checks = rng.choice([-1.0, 1.0], (900, 16, 16)).astype(np.float32)
    one = spikes.Cell(rng.poisson(0.7, 900).astype(float), checks, 0.0156)
    rate, _ = spikes.signal(Copies(), one, 0)
    turned, _ = spikes.signal(lesion(spikes.Shifted(Copies())), one, 0)
    assert abs(np.corrcoef(rate[:, 0], turned[:, 0])[0, 1]) < 0.2
    assert np.abs(turned).sum() == pytest.approx(np.abs(rate).sum(), rel=1e-6)


def test_the_field_is_found_where_the_spikes_come_from(rng):
    checks = rng.choice([-1.0, 1.0], (4000, 16, 16))
    drive = np.r_[np.zeros(2), checks[:-2, 4, 11]]
    count = rng.poisson(np.exp(0.7 * drive)).astype(float)
    assert spikes.receptive_field(count, checks) == (4, 11)


def test_cells_are_as_published(recordings):
    lgn, fly, locust = (spikes.cell(name, "full") for name in spikes.CELLS)
    assert lgn.count.mean() == pytest.approx(0.667, abs=0.02)  # nine tenths of the recording
    # A fifth of a recording of 44.7 Hz.
    assert fly.count.mean() / fly.width == pytest.approx(44.7, rel=0.1)
    assert locust.count.sum() == 929
    assert len(locust.count) * locust.width == pytest.approx(10.0)
    for one in (lgn, fly, locust):
        assert len(one.count) == len(one.frames)
    # The middle of the field drives the cell more than a corner does.
    late = lgn.count[2:] - lgn.count.mean()
    average = np.abs(np.tensordot(late, lgn.frames[:-2], 1)) / late.size
    assert average[8, 8] > 5 * average[:4, :4].mean()


@pytest.mark.slow
def test_a_copy_predicts_the_cat_cell_as_its_checks_do(recordings):
    """Equal features up to a gain predict equally well: the gain is 0."""
    one = spikes.cell("cat LGN", "quick")
    rate, shown = spikes.signal(replace(Copies(), level=0), one, 0)
    features = spikes.lagged(spikes.channels(rate, shown, one), *spikes.MEMORY["cat LGN"])
    bits = spikes.cross_validated_bits(
        features, spikes.spikes(one), n_folds=5, penalties=spikes.PENALTIES
    )
    np.testing.assert_allclose(bits, spikes.raw_bits("cat LGN", "quick"), atol=0.01)


@pytest.fixture
def short_recordings(tmp_path, monkeypatch, rng):
    """Write three short recordings as their files are; return their spikes that are scored."""
    bits = rng.integers(0, 2, (2000, 16, 16), dtype=np.uint8)
    lgn = rng.poisson(0.7, 2000)
    fly = (rng.uniform(size=40_000) < 0.2).astype(np.uint8)
    # Ten spikes lie in the last millisecond but one, one at the very end lies in no bin.
    locust = np.sort(np.r_[rng.choice(9980, 150, replace=False) * 100.0, 998_100 + np.arange(10)])
    files = {
        "lgn_cat_kara2000/c2p3.npz": {
            "counts": lgn, "stim_bits": np.packbits(bits.reshape(2000, -1), axis=1),
            "bin_ms": 15.6, "shape": bits.shape,
        },
        "fly_h1_deruyter/c1p8.npz": {
            "rho": np.packbits(fly), "stim_deg_s": rng.standard_normal(40_000), "dt_ms": 2.0,
            "n": 40_000,
        },
        "grasshopper_rokem2006/grasshopper.npz": {
            "stim1": rng.standard_normal(20_000), "stim1_dt_us": 50.0,
            "spikes1_us": np.r_[locust, 1e6],
        },
    }  # fmt: skip
    for name, arrays in files.items():
        (tmp_path / name).parent.mkdir()
        np.savez(tmp_path / name, **arrays)
    monkeypatch.setenv("PCSIM_DATA", str(tmp_path))
    kept = (spikes.cell, spikes.raw_bits, spikes.left_out)
    for function in kept:
        function.cache_clear()
    # Cat: a tenth (200) locates, a quarter of the rest (450), of which a tenth (45) warms up. Fly:
    # 3 % of 20000 pairs (600), a tenth warms up. Locust: a tenth of 1000 bins warms up.
    scored = lgn[245:650].sum() + fly[120:1200].sum() + ((locust >= 1e5) & (locust < 1e6)).sum()
    yield int(scored), int(lgn.sum() + fly.sum() + locust.size + 1)
    for function in kept:
        function.cache_clear()


@pytest.mark.slow
def test_what_a_recording_loses_reaches_the_report(short_recordings, tmp_path):
    scored, fired = short_recordings
    settings = {"models": ("LN",), "hypotheses": ("spike_prediction",), "seeds": 3}
    experiment = catalog.load("experiments", "correspondence")
    run = run_experiment(experiment, settings=settings, out=tmp_path / "run", workers=0)
    rows = {
        row["what"]: (row["excluded"], row["total"])
        for row in read_exclusions(run.folder / "exclusions.csv")
        if row["model"] == "LN" and not row["control"]
    }
    bins = 3 * (2000 + 20_000 + 1000)
    left = bins - 3 * (405 + 540 + 900)
    assert rows["bins"] == (left, bins)
    assert rows["spikes"] == (3 * (fired - scored), 3 * fired)
    assert rows["units"] == (0, 9)
    write_report([run], tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert f"{left} of {bins} bins left out" in page
    assert "Differs from its source" in page


def test_panels_draw_the_saved_numbers(recordings):
    from matplotlib.figure import Figure

    ax = Figure().add_subplot()
    shown = similarity.observe(Copies(), seed=0, scale="quick")
    silent = similarity.observe(Copies(gain=0.0), seed=0, scale="quick")
    similarity.panel({"LN": [shown, shown], "RB-cut": [silent]}, ax)
    np.testing.assert_allclose(ax.lines[0].get_ydata(), float(shown["human"].mean()), atol=1e-12)
    assert len(ax.lines[0].get_ydata()) == 2
    assert len(ax.lines[1].get_ydata()) == 0
    ax = Figure().add_subplot()
    gain = np.arange(15.0).reshape(3, 5)
    evidence = {"gain": (("unit", "stimulus"), gain)}
    spikes.panel({"LN": [xr.Dataset(evidence)], "RB": [xr.Dataset(evidence)]}, ax)
    assert [float(line.get_ydata()[0]) for line in ax.lines[:6:2]] == [2.0, 7.0, 12.0]
