"""The recordings at hand become lawful responses and tables; damaged files are refused.

The numbers that follow from them are in `test_measures_bytes.py`. The files need a folder with the
data: PCSIM_DATA. How they fail needs none.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from pcsim import neural
from pcsim.responses import check_responses


def folder(name):
    """Return the folder of a recording in PCSIM_DATA, or skip."""
    if not os.environ.get("PCSIM_DATA"):
        pytest.skip("PCSIM_DATA is not set: no folder with recordings")
    path = Path(os.environ["PCSIM_DATA"]) / name
    if not path.is_dir():
        pytest.skip(f"{name} is not in PCSIM_DATA")
    return path


def populations():
    """Return the nine files of macaque V1."""
    return sorted(folder("v1_macaque_henaff2021").glob("*_image_sequences.mat"))


def test_cat_lgn_counts():
    responses, stimulus = neural.lgn_kara_2000(folder("lgn_cat_kara2000"))
    count = responses.spike_count
    assert round(count.mean().item(), 3) == 0.667
    assert round((count.var() / count.mean()).item(), 2) == 1.49
    assert count.sum() == 21847
    assert set(np.unique(stimulus)) == {0.0, 1.0}
    assert "Kara" in responses.attrs["citation"]


def test_locust_stimulus_covers_the_spikes():
    spikes, stimulus = neural.locust_receptor_rokem_2006(folder("grasshopper_rokem2006"))
    assert spikes.stop.item() == pytest.approx(10.0)
    assert stimulus.sizes["time"] == 200_000


def test_mouse_v1_has_one_trial_a_grating():
    responses = neural.mouse_v1_allen(folder("v1_mouse_allen"))
    assert dict(responses.sizes) == {"trial": 40, "time": 1, "unit": 135}


def test_ganglion_cells_point_up():
    fields = neural.macaque_ganglion_apricot(folder("rgc_macaque_apricot"), "OFF midget")
    for name in ("space", "time_course"):
        flat = fields[name].values.reshape(fields.sizes["unit"], -1)
        np.testing.assert_allclose(flat.max(axis=1), np.abs(flat).max(axis=1))


def test_sparseness_tables_agree():
    table = neural.macaque_v1_sparseness_tang_2018(folder("v1_macaque_tang2018"), monkey=1)
    assert table.n_active.sum() == table.n_images.sum()


def test_histograms_of_macaque_v1_are_lawful():
    check_responses(neural.macaque_v1_psth_henaff_2021(populations()[0]))


def test_macaque_v1_whole_trials_are_counted():
    path = populations()[0]
    responses = check_responses(neural.macaque_v1_henaff_2021(path))
    table = neural.macaque_v1_counts_henaff_2021(path)
    left_out = neural.exclusions(responses)
    assert left_out["nan_bins"] == int(table.isnull().sum())
    assert left_out["nan_trials"] + responses.sizes["trial"] == table.size // table.sizes["unit"]
    trial = responses.isel(trial=7)
    chosen = {n: trial[n].item() for n in ("repeat", "frame_number", "movie", "category", "zoom")}
    np.testing.assert_array_equal(trial.spike_count.values[0], table.sel(chosen).values)
    np.testing.assert_allclose(trial.rate, trial.spike_count / 0.2)


def test_scenes_are_natural_and_distinct():
    scenes = neural.mouse_scenes_allen(folder("v1_mouse_allen"))
    assert dict(scenes.sizes) == {"scene": 118, "y": 31, "x": 31}
    assert scenes.dtype == np.uint8
    flat = scenes.values.reshape(118, -1)
    assert len(np.unique(flat, axis=0)) == 118
    # Light of natural scenes changes little from pixel to pixel, in either direction.
    light = scenes.values.astype(float)
    for dim in (1, 2):
        step = np.diff(light, axis=dim).var() / 2
        assert step < 0.25 * light.var(axis=(1, 2)).mean()


@pytest.mark.parametrize(
    ("which", "n", "step", "ends"),
    [
        ("meg", 1, 1000 / 2048, (1.46484375, 49.8046875)),
        ("meg_wide", 1, 1000 / 2048, (0.0, 500.0)),
        ("meg_group", 25, 1000 / 2048, (1.46484375, 49.8046875)),
        ("lfp", 1, 1.0, (0.0, 625.0)),
    ],
)
def test_spectra_fall_and_have_an_alpha_peak(which, n, step, ends):
    power = neural.field_potential_spectra(folder("field_potential_spectra"), which)
    frequency = power["frequency"].values
    assert power.sizes["spectrum"] == n
    assert (frequency[0], frequency[-1]) == pytest.approx(ends)
    np.testing.assert_allclose(np.diff(frequency), step, rtol=1e-9)
    assert (power > 0).all()
    kept = power.sel(frequency=slice(2.0, 45.0))
    x = np.log10(kept["frequency"].values)
    slope, offset = np.polyfit(x, np.log10(kept.values).T, 1)
    assert (slope < -0.5).all()
    if which != "lfp":
        above = np.log10(kept.values) - slope[:, None] * x - offset[:, None]
        peak = kept["frequency"].values[above.argmax(axis=1)]
        # One point of the 25 has no alpha rhythm.
        assert ((peak > 8) & (peak < 13)).sum() == n - (which == "meg_group")


def test_ganglion_cells_of_benardete_agree_with_themselves():
    path = folder("rgc_macaque_apricot")
    wrong = set()
    for cell_type in ("midget", "parasol"):
        table = neural.macaque_ganglion_benardete(path, cell_type)
        np.testing.assert_allclose(table["sem"], table["sd"] / np.sqrt(table["n"]), rtol=1e-9)
        assert ((table["minimum"] <= table["median"]) & (table["median"] <= table["maximum"])).all()
        two, both = table.sel(centre=["ON", "OFF"]), table.sel(centre="ALL")
        assert (two["n"].sum("centre") == both["n"]).all()
        assert (two["minimum"].min("centre") == both["minimum"]).all()
        assert (two["maximum"].max("centre") == both["maximum"]).all()
        pooled = (two["n"] * two["mean"]).sum("centre") / both["n"]
        off = np.abs(pooled - both["mean"]) > 0.01 * np.abs(pooled) + 0.01
        # Popoviciu: no n values within a range scatter more than half at either end.
        most = 0.5 * (table["maximum"] - table["minimum"]) * np.sqrt(table["n"] / (table["n"] - 1))
        wide = (table["sd"] > most).any("centre")
        wrong |= {(cell_type, p) for p in table["parameter"].values[(off | wide).values].tolist()}
    assert wrong == {("midget", "A_cen"), ("parasol", "Chalf"), ("parasol", "D")}


def test_the_surround_of_midget_cells_is_late_by_about_8_ms():
    """The abstract of the paper: "a delay of approximately 8 ms in the surround response"."""
    table = neural.macaque_ganglion_benardete(folder("rgc_macaque_apricot"), "midget")
    late = table.sel(parameter="deltaNLTL_sur", centre="ALL")
    assert late["median"] == pytest.approx(8, abs=0.5)
    assert late["mean"] == pytest.approx(8, abs=0.5)


LOADERS = {
    "c2p3.npz": neural.lgn_kara_2000,
    "c1p8.npz": neural.fly_h1_deruyter,
    "grasshopper.npz": neural.locust_receptor_rokem_2006,
    "neuropixels_VISp_drifting_gratings.npz": neural.mouse_v1_allen,
    "tang2018_fig1_fig2.npz": neural.macaque_v1_sparseness_tang_2018,
    "ay2_u003_image_sequences.mat": neural.macaque_v1_henaff_2021,
    "Kriegeskorte_Neuron2008_supplementalData.mat": neural.rdms_92_images,
    "curvature_235x.csv": neural.macaque_v1_curvature_henaff_2021,
    "natural_scenes_118_31px.npz": neural.mouse_scenes_allen,
    "freqs.npy": neural.field_potential_spectra,
    "Benardete_1999_VisNeurosci_parasol.csv": partial(
        neural.macaque_ganglion_benardete, cell_type="parasol"
    ),
}


@pytest.mark.parametrize(("name", "load"), LOADERS.items())
def test_absent_damaged_and_other_files_are_refused(name, load, tmp_path, refused):
    assert name in refused(load, tmp_path)
    (tmp_path / name).write_bytes(b"PK\x03\x04 cut short")
    assert "get it again" in refused(load, tmp_path)
    if name.endswith("npz"):
        np.savez(tmp_path / name, other=np.zeros(2))
        assert "another recording" in refused(load, tmp_path / name)


def test_unknown_choices_are_refused(tmp_path, refused):
    assert "200 or 800 Hz" in refused(neural.locust_receptor_rokem_2006, tmp_path, cutoff=300)
    assert "1 or 2" in refused(neural.macaque_v1_sparseness_tang_2018, tmp_path, monkey=3)
    assert "ON midget" in refused(neural.macaque_ganglion_apricot, tmp_path, "on midget")
    assert "Did you mean" in refused(neural.rdms_92_images, tmp_path, "humans")
    assert "meg_wide" in refused(neural.field_potential_spectra, tmp_path, "eeg")
    assert "midget" in refused(neural.macaque_ganglion_benardete, tmp_path, "ON midget")


def test_spectra_that_do_not_fit_their_frequencies_are_refused(tmp_path, refused):
    np.save(tmp_path / "freqs.npy", np.arange(4.0))
    np.save(tmp_path / "spectrum.npy", np.ones(3))
    assert "one power a frequency" in refused(neural.field_potential_spectra, tmp_path)
    np.save(tmp_path / "spectrum.npy", np.array([1.0, np.nan, 1.0, 1.0]))
    assert "not finite" in refused(neural.field_potential_spectra, tmp_path)


def test_a_recording_survives_nwb(tmp_path):
    pytest.importorskip("pynwb", reason="NWB files need pynwb")
    spikes, _ = neural.locust_receptor_rokem_2006(folder("grasshopper_rokem2006"))
    assert spikes.attrs["resolution"] == 1e-4
    times = neural.spike_times(spikes)[0][0] / 1e-4
    np.testing.assert_allclose(times, np.round(times), atol=1e-9)
    animal = {"subject_id": "1", "species": "Locusta migratoria", "sex": "U", "age": "P1D/"}
    path = neural.write_nwb(tmp_path / "locust.nwb", spikes=spikes, subject=animal)
    found = neural.validate_nwb(path)
    assert [m for m in found if not m.startswith("BEST_PRACTICE_SUGGESTION")] == []
    back = neural.read_nwb(path).spikes
    xr.testing.assert_allclose(back.drop_attrs(), spikes.drop_attrs(), atol=1e-9)
