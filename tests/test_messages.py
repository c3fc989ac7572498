"""The checks at the border and the one form of their messages."""

from __future__ import annotations

import numpy as np
import pytest

from pcsim.messages import (
    check_array,
    check_choice,
    check_integer,
    check_number,
    refusal,
    unknown_name,
)


def test_form_of_a_message():
    assert refusal("a", "b", "c") == "a: found b, expected c."
    assert refusal("a", "b", "c.", "Do d.") == "a: found b, expected c. Do d."


def test_of_very_many_names_the_nearest_are_listed():
    text = str(unknown_name("run", "need", "a/77x", [f"a/{n}" for n in range(200)]))
    assert "'a/77'" in text
    assert "and 190 others" in text
    assert text.count("'a/") == 12  # with the name itself and the suggestion


def test_unknown_name_lists_and_suggests():
    text = str(unknown_name("load", "circuit", "bogatz", ["rao", "bogacz"]))
    assert text == (
        "load: found circuit 'bogatz', expected one of 'bogacz', 'rao'. Did you mean 'bogacz'?"
    )
    assert "Did you mean" not in str(unknown_name("load", "circuit", "xyz", ["rao"]))
    assert "none is known" in str(unknown_name("load", "circuit", "xyz", []))


def test_arrays_keep_float32_and_become_float64():
    assert check_array("f", "x", np.zeros(2, np.float32)).dtype == np.float32
    assert check_array("f", "x", [1, 2]).dtype == np.float64
    assert check_array("f", "x", [True]).dtype == np.float64
    x = np.ones(3)
    assert check_array("f", "x", x) is x


@pytest.mark.parametrize(
    ("shape", "wanted", "fits"),
    [
        ((2, 3), (2, 3), True),
        ((2, 3), (2, 4), False),
        ((2, 3), (None, 3), True),
        ((2, 3), ("n", "m"), True),
        ((2, 3), ("n", "n"), False),
        ((3, 3), ("n", "n"), True),
        ((2,), (None, None), False),
        ((), (), True),
        ((5, 4, 2, 3), (..., 2, 3), True),
        ((2, 3), (..., 2, 3), True),
        ((3,), (..., 2, 3), False),
        ((5, 2, 3), (..., "n", "n"), False),
    ],
)
def test_shapes(refused, shape, wanted, fits):
    if fits:
        assert check_array("f", "x", np.zeros(shape), shape=wanted).shape == shape
    else:
        assert f"x of shape {shape}" in refused(
            check_array, "f", "x", np.zeros(shape), shape=wanted
        )


@pytest.mark.parametrize(
    ("value", "options", "words"),
    [
        ([1.0, np.nan], {}, "1 of 2 entries of x NaN or infinite"),
        ([0.7, -4.0], {"positive": True}, "x down to -4"),
        ([0.7, 0.0], {"positive": True}, "above 0"),
        ([[1.0], [2.0, 3.0]], {}, "rows of equal length"),
        (["a"], {}, "real numbers"),
        ([1j], {}, "real numbers"),
        (None, {}, "NoneType"),
    ],
)
def test_arrays_that_are_refused(refused, value, options, words):
    assert words in refused(check_array, "f", "x", value, **options)


def test_nan_passes_where_asked():
    assert np.isnan(check_array("f", "x", [np.nan], finite=False)[0])


@pytest.mark.parametrize(
    ("value", "options", "words"),
    [
        (float("nan"), {}, "expected a finite number."),
        (float("inf"), {"low": 0.0}, "a finite number not below 0.0"),
        (5.0, {"high": 4.0}, "a finite number not above 4.0"),
        (-0.1, {"low": 0.0, "high": 1.0}, "a number from 0.0 to 1.0"),
        (0.0, {"positive": True}, "a finite number above 0"),
        (float("inf"), {"positive": True}, "a finite number above 0"),
        ("3", {}, "found x '3', expected one number"),
        ([1.0], {}, "one number"),
        (True, {}, "found x True"),
        (None, {}, "found x None"),
        (1j, {}, "one number"),
        ("long" * 99, {}, "found x of type str"),
        ([1, [2, 3]], {}, "found x [1, [2, 3]], expected one number"),
        (10**400, {}, "found x of type int, expected one number"),
    ],
)
def test_numbers_that_are_refused(refused, value, options, words):
    assert words in refused(check_number, "f", "x", value, **options)


def test_numbers_that_pass():
    assert check_number("f", "x", np.float32(0.5), low=0.5) == 0.5
    assert check_number("f", "x", np.array(4), positive=True) == 4.0
    assert check_integer("f", "n", np.int64(4)) == 4
    assert check_choice("f", "kind", "zca", ["zca"]) == "zca"


@pytest.mark.parametrize("value", [1.0, "1", True, None, -1])
def test_integers_that_are_refused(refused, value):
    refused(check_integer, "f", "n", value)


@pytest.mark.parametrize("value", ["zcaa", None, 3, ["zca"]])
def test_choices_that_are_refused(refused, value):
    assert "expected one of 'pca', 'zca'" in refused(
        check_choice, "f", "kind", value, ("zca", "pca")
    )
