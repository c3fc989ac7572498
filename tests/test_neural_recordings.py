"""The recordings at hand become lawful responses and tables; damaged files are refused.

The numbers that follow from them are in `test_measures_bytes.py`. The files need a folder with the
data: PCSIM_DATA. How they fail needs none.
"""

from __future__ import annotations

import os
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


LOADERS = {
    "c2p3.npz": neural.lgn_kara_2000,
    "c1p8.npz": neural.fly_h1_deruyter,
    "grasshopper.npz": neural.locust_receptor_rokem_2006,
    "neuropixels_VISp_drifting_gratings.npz": neural.mouse_v1_allen,
    "tang2018_fig1_fig2.npz": neural.macaque_v1_sparseness_tang_2018,
    "ay2_u003_image_sequences.mat": neural.macaque_v1_henaff_2021,
    "Kriegeskorte_Neuron2008_supplementalData.mat": neural.rdms_92_images,
    "curvature_235x.csv": neural.macaque_v1_curvature_henaff_2021,
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
