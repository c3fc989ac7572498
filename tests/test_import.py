"""What ``import pcsim`` costs: nothing that only some users need."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import pcsim

HEAVY = ("torch", "brian2", "matplotlib", "skimage", "sklearn", "h5py", "dask", "zarr", "typer")


def loaded_after(code: str) -> set[str]:
    """Return the names in `sys.modules` of a fresh Python that ran `code`."""
    code += "\nimport sys, json; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_import_is_light():
    loaded = loaded_after("import pcsim")
    assert not loaded & {*HEAVY, "numpy", "xarray", "scipy"}


def test_the_schema_needs_no_more_than_xarray():
    loaded = loaded_after("import pcsim; pcsim.make_responses; pcsim.names('circuits')")
    assert not loaded & set(HEAVY)


def test_every_public_name_is_there():
    for name in pcsim.__all__:
        assert getattr(pcsim, name) is not None
    assert set(dir(pcsim)) == set(pcsim.__all__)


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'simulat'"):
        pcsim.simulat  # noqa: B018
    assert not hasattr(pcsim, "_private")
