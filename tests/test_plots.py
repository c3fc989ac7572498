"""What the plots put on the axes: the numbers they were given, in the colours of the project."""

from __future__ import annotations

import matplotlib
import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure

from pcsim.plots import (
    COLOURS,
    DOUBLE_COLUMN,
    OKABE_ITO,
    VERDICTS,
    colour,
    plot_forest,
    plot_receptive_fields,
    plot_spectrum,
    plot_tuning,
    plot_verdict_matrix,
    publication_figure,
    save,
    style,
)


@pytest.fixture
def ax():
    with publication_figure() as figure:
        yield figure.add_subplot()


def curve(values, **coords) -> xr.DataArray:
    x = np.array([0.5, 1.0, 2.0])
    values = np.asarray(values)
    dims = ("size",) if values.ndim == 1 else ("replica", "size")
    return xr.DataArray(values, dims=dims, coords={"size": x})


def test_colours_have_one_meaning_each():
    assert len(set(COLOURS.values())) == len(COLOURS)
    assert {COLOURS[m] for m in ("error", "latent", "prediction", "data")} <= set(
        OKABE_ITO.values()
    )
    assert colour("latent") == OKABE_ITO["blue"]
    with pytest.raises(ValueError, match="Did you mean 'error'"):
        colour("errors")


def luminance(hex_: str) -> float:
    """Relative luminance, WCAG 2."""
    parts = np.array([int(hex_[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def test_verdicts_read_in_grey_and_their_symbols_have_contrast():
    inks = {"white": "#FFFFFF", "black": "#000000"}
    for fill, _, ink in VERDICTS.values():
        pair = sorted((luminance(fill), luminance(inks.get(ink, ink))))
        assert (pair[1] + 0.05) / (pair[0] + 0.05) >= 4.5
    assert len({symbol for _, symbol, _ in VERDICTS.values()}) == len(VERDICTS)
    shades = sorted(luminance(VERDICTS[v][0]) for v in ("SUPPORTED", "REFUTED", "QUALITATIVE"))
    assert min(np.diff(shades)) > 0.1


def test_curve_with_interval(ax):
    plot_tuning(curve([1, 3, 2]), x="size", low=curve([0, 2, 1]), high=curve([2, 4, 3]), ax=ax)
    np.testing.assert_array_equal(ax.lines[0].get_xydata(), [[0.5, 1], [1, 3], [2, 2]])
    band = ax.collections[0].get_paths()[0].vertices
    assert (band[:, 1].min(), band[:, 1].max()) == (0, 4)


def test_curve_of_replicas_is_mean_and_range(ax):
    plot_tuning(curve([[1, 2, 3], [3, 2, 7]]), x="size", ax=ax, label="RB", color="red")
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), [2, 2, 5])
    band = ax.collections[0].get_paths()[0].vertices
    assert (band[:, 1].min(), band[:, 1].max()) == (1, 7)
    assert ax.lines[0].get_label() == "RB"


def test_unlawful_curves_are_refused(ax):
    with pytest.raises(ValueError, match="Average over the units"):
        plot_tuning(curve([[1, 2, 3]]), x="length", ax=ax)
    with pytest.raises(ValueError, match="both ends"):
        plot_tuning(curve([1, 2, 3]), x="size", low=curve([0, 1, 2]), ax=ax)
    with pytest.raises(ValueError, match="beside replicas"):
        plot_tuning(
            curve([[1, 2, 3]]), x="size", low=curve([0, 1, 2]), high=curve([3, 4, 5]), ax=ax
        )


def test_spectrum_is_logarithmic_and_leaves_out_zero(ax):
    power = xr.DataArray([9.0, 4.0, 1.0], coords={"frequency": [0.0, 1.0, 2.0]})
    plot_spectrum(power, ax=ax)
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    np.testing.assert_array_equal(ax.lines[0].get_xydata(), [[1, 4], [2, 1]])
    assert "Hz" in ax.get_xlabel()


def test_receptive_fields_are_scaled_one_by_one(ax):
    fields = np.stack([np.full((2, 3), 4.0), np.zeros((2, 3)), -0.7 * np.eye(2, 3)])
    plot_receptive_fields(fields, columns=2, ax=ax)
    (image,) = ax.images
    mosaic = image.get_array().filled(np.nan)
    assert mosaic.shape == (2 * 2 + 1, 2 * 3 + 1)
    np.testing.assert_array_equal(mosaic[:2, :3], 1.0)
    np.testing.assert_array_equal(mosaic[:2, 4:], 0.0)
    np.testing.assert_array_equal(mosaic[3:, :3], -np.eye(2, 3))
    assert image.get_clim() == (-1.0, 1.0)
    with pytest.raises(ValueError, match=r"shape \(2, 3\)"):
        plot_receptive_fields(fields[0], ax=ax)


def test_forest_draws_effects_controls_and_reference(ax):
    rows = [
        {"label": "RB", "effect": 0.4, "low": 0.3, "high": 0.5}
        | {"control_effect": 0.1, "control_low": 0.0, "control_high": 0.2},
        {"label": "LN", "effect": 0.0, "low": -0.1, "high": 0.1, "control_effect": None},
        {"label": "LGN", "effect": None},
    ]
    plot_forest(rows, reference=(0.3, 0.7), null=0.0, label="Effect (1)", ax=ax)
    assert [text.get_text() for text in ax.get_yticklabels()] == ["RB", "LN", "LGN"]
    points = {line.get_label(): line.get_xdata() for line in ax.lines}
    np.testing.assert_array_equal(points["model"], [0.4, 0.0])
    np.testing.assert_array_equal(points["strongest control"], [0.1])
    assert ax.get_ylim() == (2.5, -0.5)
    assert [patch.get_label() for patch in ax.patches] == ["published"]


def test_matrix_has_a_symbol_a_cell_and_the_expectation_in_its_corner(ax):
    verdicts = {("H10", "RB"): "SUPPORTED", ("H10", "LN"): "REFUTED", ("H01", "RB"): "N/A"}
    plot_verdict_matrix(
        verdicts,
        rows=[("H01", "H01 white"), ("H10", "H10 ends")],
        columns=["LN", "RB"],
        expectations={("H10", "RB"): "+", ("H10", "LN"): "-", ("H01", "RB"): "."},
        ax=ax,
    )
    cells = {text.get_position(): text.get_gid() for text in ax.texts if text.get_gid()}
    assert cells == {(1, 1): "SUPPORTED", (0, 1): "REFUTED", (1, 0): "N/A"}
    corners = {text.get_text() for text in ax.texts if not text.get_gid()}
    assert corners == {"+", "\N{MINUS SIGN}"}
    assert len(ax.get_legend().get_texts()) == len(VERDICTS)
    assert "control of the claim" not in ax.get_legend().get_title().get_text()
    with pytest.raises(ValueError, match="Did you mean 'SUPPORTED'"):
        plot_verdict_matrix({("a", "b"): "SUPORTED"}, rows=[("a", "a")], columns=["b"], ax=ax)


def test_matrix_marks_columns_that_are_controls(ax):
    verdicts = {("H10", "RB"): "SUPPORTED", ("H10", "LN"): "NON-SPECIFIC"}
    plot_verdict_matrix(
        verdicts, rows=[("H10", "H10")], columns=["RB", "LN"], controls={("H10", "LN")}, ax=ax
    )
    (mark,) = [patch for patch in ax.patches if patch.get_gid() == "control"]
    # In the lower left of the cell at column 1, row 0 (y runs down).
    assert mark.get_xy().min(axis=0) == pytest.approx([1 - 0.47, 0.46 - 0.3])
    assert mark.get_xy().max(axis=0) == pytest.approx([1 - 0.47 + 0.3, 0.46])
    assert "is a control of the claim" in ax.get_legend().get_title().get_text()


def test_a_figure_of_its_own_when_no_axes_are_given():
    import matplotlib.pyplot as plt

    ax = plot_tuning(curve([1, 2, 3]), x="size")
    assert isinstance(ax.figure, Figure)
    plt.close(ax.figure)


def test_style_does_not_leak():
    before = dict(matplotlib.rcParams)
    with style():
        assert matplotlib.rcParams["pdf.fonttype"] == 42
    assert dict(matplotlib.rcParams) == before


def test_width_and_the_same_bytes(tmp_path):
    def draw(name):
        with publication_figure(DOUBLE_COLUMN, 60) as figure:
            plot_tuning(curve([1, 2, 3]), x="size", ax=figure.add_subplot())
        for suffix in (".pdf", ".svg", ".png"):
            save(figure, tmp_path / f"{name}{suffix}")
        return [(tmp_path / f"{name}{suffix}").read_bytes() for suffix in (".pdf", ".svg", ".png")]

    first = draw("a")
    assert first == draw("b")
    assert b"/Type /Font" not in first[0] or b"/Subtype /Type3" not in first[0]
    assert b'width="510' in first[1]  # 180 mm are 510.2 points
    with pytest.raises(ValueError, match="kind of figure"):
        save(Figure(), tmp_path / "a.jpg")
