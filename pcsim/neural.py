"""Recordings: spikes and rates of neurons, read into the schema every model answers in.

Three things, all labelled by unit and trial: **spikes** (`make_spikes`: times in seconds),
**responses** (`bin_spikes`, `responses_from_array`: counts and rates in Hz), and NWB files
(`write_nwb`, `read_nwb`). Recordings that are at hand as files each have a loader, such as
`lgn_kara_2000`. What a quality rule leaves out is counted, see `exclusions`.

>>> spikes = make_spikes([[[0.010, 0.012, 0.055]]], stop=0.1)
>>> bin_spikes(spikes, 0.05).spike_count.values.ravel()
array([2., 1.])
"""

from __future__ import annotations

from pcsim.neural_bins import align_spikes, bin_spikes, psth
from pcsim.neural_fields import (
    images_92,
    macaque_ganglion_apricot,
    macaque_v1_curvature_henaff_2021,
    rdms_92_images,
)
from pcsim.neural_files import absent_recordings, recording_folder
from pcsim.neural_loaders import (
    fly_h1_deruyter,
    lgn_kara_2000,
    locust_receptor_rokem_2006,
    mouse_v1_allen,
)
from pcsim.neural_loaders_v1 import (
    macaque_v1_counts_henaff_2021,
    macaque_v1_henaff_2021,
    macaque_v1_psth_henaff_2021,
    macaque_v1_sparseness_tang_2018,
)
from pcsim.neural_nwb import write_nwb
from pcsim.neural_nwb_read import NwbContents, read_nwb, validate_nwb
from pcsim.neural_poisson import spikes_from_rates
from pcsim.neural_quality import exclude_units, exclusions, responses_from_array
from pcsim.neural_spikes import check_spikes, make_spikes, spike_times
from pcsim.neural_tables import (
    field_potential_spectra,
    macaque_ganglion_benardete,
    mouse_scenes_allen,
)

__all__ = [
    "NwbContents",
    "absent_recordings",
    "align_spikes",
    "bin_spikes",
    "check_spikes",
    "exclude_units",
    "exclusions",
    "field_potential_spectra",
    "fly_h1_deruyter",
    "images_92",
    "lgn_kara_2000",
    "locust_receptor_rokem_2006",
    "macaque_ganglion_apricot",
    "macaque_ganglion_benardete",
    "macaque_v1_counts_henaff_2021",
    "macaque_v1_curvature_henaff_2021",
    "macaque_v1_henaff_2021",
    "macaque_v1_psth_henaff_2021",
    "macaque_v1_sparseness_tang_2018",
    "make_spikes",
    "mouse_scenes_allen",
    "mouse_v1_allen",
    "psth",
    "rdms_92_images",
    "read_nwb",
    "recording_folder",
    "responses_from_array",
    "spike_times",
    "spikes_from_rates",
    "validate_nwb",
    "write_nwb",
]
