"""Nonlinearities: derivative against autograd and differences, Brian strings against arrays."""

from __future__ import annotations

import pickle

import array_api_strict
import numpy as np
import pytest
import torch
from array_api_compat import array_namespace

from pcsim.nonlinearity import (
    Nonlinearity,
    linear,
    logistic,
    nonlinearity,
    power,
    relu,
    soft_threshold,
    square,
    tanh,
)

ALL = (linear, tanh, logistic, relu, square, soft_threshold(0.4), power(1.0), power(2.5))
ALL = (*ALL, power(3.0, rectified=False))
ids = pytest.mark.parametrize("each", ALL, ids=lambda n: n.name)


@pytest.fixture
def u(rng):
    return np.concatenate([rng.normal(size=40) * 2, [0.7, -0.7, 4.0, -4.0]])


@ids
def test_derivative_agrees_with_autograd(each, u):
    x = torch.tensor(u, requires_grad=True)
    xp = array_namespace(x)
    each.f(x, xp).sum().backward()
    np.testing.assert_allclose(each.df(x.detach(), xp).numpy(), x.grad.numpy(), atol=1e-14)


@ids
def test_derivative_agrees_with_differences(each, u):
    h = 1e-6
    slope = (each.f(u + h, np) - each.f(u - h, np)) / (2 * h)
    np.testing.assert_allclose(each.df(u, np), slope, rtol=1e-6, atol=1e-8)


@ids
def test_any_array_library_gives_the_same(each, u):
    xp = array_api_strict
    np.testing.assert_allclose(np.asarray(each.f(xp.asarray(u), xp)), each.f(u, np), rtol=1e-15)
    np.testing.assert_allclose(np.asarray(each.df(xp.asarray(u), xp)), each.df(u, np), rtol=1e-15)


@ids
def test_brian_strings_mean_the_same(each, u):
    names = {
        "u": u,
        "tanh": np.tanh,
        "abs": np.abs,
        "sign": np.sign,
        "int": lambda x: x.astype(int),
    }
    value = eval(each.brian, {"__builtins__": {}}, names)
    slope = eval(each.brian_df, {"__builtins__": {}}, names)
    np.testing.assert_allclose(value, each.f(u, np), rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(slope * np.ones_like(u), each.df(u, np), rtol=1e-12, atol=1e-15)


@ids
def test_pickles_compares_and_hashes(each):
    copy = pickle.loads(pickle.dumps(each))
    assert copy == each
    assert hash(copy) == hash(each)


def test_parameters_distinguish():
    assert soft_threshold(0.4) == soft_threshold(0.4)
    assert soft_threshold(0.4) != soft_threshold(0.7)
    assert power(2.0) != power(2.0, rectified=False)


def test_values_at_zero_and_far_out():
    far = np.array([-800.0, 0.0, 800.0])
    np.testing.assert_allclose(logistic.f(far, np), [0, 0.5, 1])
    np.testing.assert_allclose(logistic.df(far, np), [0, 0.25, 0])
    np.testing.assert_allclose(relu.df(far, np), [0, 0, 1])
    np.testing.assert_allclose(power(1.0).df(far, np), [0, 0, 1])


def test_closed_forms(u):
    np.testing.assert_allclose(logistic.f(u, np), 1 / (1 + np.exp(-u)), rtol=1e-12)
    np.testing.assert_allclose(square.f(u, np), power(2.0).f(np.abs(u), np), rtol=1e-14)


def test_resolve():
    assert nonlinearity("tanh") is tanh
    mine = Nonlinearity("mine", f=lambda x, xp: xp.sin(x), df=lambda x, xp: xp.cos(x))
    assert nonlinearity(mine) is mine


def test_refusals():
    with pytest.raises(ValueError, match="Did you mean 'tanh'"):
        nonlinearity("tnah")
    with pytest.raises(ValueError, match=r"found lam -0\.1, expected a finite number not below 0"):
        soft_threshold(-0.1)
    with pytest.raises(ValueError, match=r"power: found n 0\.5, expected a finite number"):
        power(0.5)
    with pytest.raises(TypeError, match=r"expected a function of \(x, xp\)"):
        Nonlinearity("mine", f=3, df=lambda x, xp: x)
