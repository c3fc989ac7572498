"""Tone sequences with rules: their counts, their timing, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest

from pcsim import stimuli
from pcsim.stimuli import (
    ToneScale,
    local_global_sequence,
    markov_sequence,
    pair_sequence,
    self_sound_sequence,
    tone_events,
)
from pcsim.stimulus import check_stimulus


@pytest.mark.parametrize(("rule", "frequent", "other"), [("xxxxY", 7, 4), ("xxxxx", 4, 7)])
def test_chunks_keep_their_rule_and_its_shares(rule, frequent, other):
    sequence = local_global_sequence(
        52, rule=rule, tones=(4, 7), shares=(0.2, 0.1), habituation=12, seed=3
    )
    events = tone_events(check_stimulus(sequence))
    tone, role = events.tone.reshape(52, 5), events.role.reshape(52, 5)
    assert (tone[:, :4] == 4).all()
    assert (tone[:12, 4] == frequent).all()
    last = tone[12:, 4]
    assert [(last == one).sum() for one in (frequent, other, -1)] == [28, 8, 4]
    for name, one in (("frequent", frequent), ("rare", other), ("omission", -1)):
        np.testing.assert_array_equal(role[:, 4] == name, tone[:, 4] == one)


def test_chunks_sound_when_they_should():
    sequence = local_global_sequence(4, tones=(1, 5), habituation=3, shares=(0.0, 1.0), seed=1)
    frames = sequence.values[0].reshape(4, 56, 10)
    onset = np.arange(5) * 6
    expected = np.zeros((56, 10))
    for place in range(5):
        expected[onset[place] : onset[place] + 2, 1 if place < 4 else 5] = 1
    np.testing.assert_array_equal(frames[0], expected)
    expected[24:26] = 0
    np.testing.assert_array_equal(frames[3], expected)
    events = tone_events(sequence)
    np.testing.assert_allclose(events.onset[:6], [0.0, 0.15, 0.3, 0.45, 0.6, 1.4])
    assert sequence.ending.values[[0, -1]].tolist() == ["Y", "nothing"]


def test_rare_chunks_come_anywhere_with_equal_chance():
    count = np.zeros(20)
    for seed in range(400):
        sequence = local_global_sequence(20, habituation=0, shares=(0.1, 0.1), seed=seed)
        count += tone_events(sequence).role[4::5] == "rare"
    assert (np.abs(count / 400 - 0.1) < 4.5 * np.sqrt(0.1 * 0.9 / 400)).all()


@pytest.mark.parametrize("share", [0.25, 0.75])
def test_every_tone_is_repeated_in_its_share_of_pairs(share):
    events = tone_events(check_stimulus(pair_sequence(32, repetition_probability=share, seed=6)))
    first, second = events.tone.reshape(32, 2).T
    for tone in (1, 3, 5, 7):
        assert (first == tone).sum() == 8
        assert (second[first == tone] == tone).sum() == 8 * share
    role = events.role.reshape(32, 2)
    assert (role[:, 0] == "first").all()
    np.testing.assert_array_equal(role[:, 1] == "repetition", first == second)
    onset = events.onset.reshape(32, 2)
    np.testing.assert_allclose(onset[:, 1] - onset[:, 0], 0.75)
    np.testing.assert_allclose(np.diff(onset[:, 0]), 1.75)


def test_markov_chain_has_its_transitions():
    chain = np.array([[0.1, 0.6, 0.3], [0.5, 0.2, 0.3], [0.0, 1.0, 0.0]])
    tone = tone_events(markov_sequence(chain, 6000, seed=2)).tone
    for source, row in enumerate(chain):
        after = tone[1:][tone[:-1] == source]
        share = np.bincount(after, minlength=3) / after.size
        assert (np.abs(share - row) <= 4 * np.sqrt(row * (1 - row) / after.size)).all()


def test_events_of_an_oddball_sequence_are_its_tones():
    sequence = stimuli.oddball_sequence(40, seed=2)
    events = tone_events(sequence)
    np.testing.assert_allclose(events.onset, 0.25 * np.arange(40))
    np.testing.assert_array_equal(events.tone, sequence.tone.values[::10])
    assert (events.role == "deviant").sum() == 4


@pytest.mark.parametrize("coupled", [True, False])
def test_movements_and_their_sound(coupled):
    sequence = check_stimulus(self_sound_sequence(20, coupled=coupled, n_probes=2, seed=4))
    frames = sequence.values[0].reshape(-1, 28, 6)
    role = tone_events(sequence).role
    assert [(role == name).sum() for name in ("training", "self", "late", "silent")] == [
        44,
        2,
        2,
        2,
    ]
    lag = frames[..., 1:].sum(axis=2).argmax(axis=1)
    assert (
        frames[role != "passive"][:, 0, 0] == (role[role != "passive"] != "deviant passive")
    ).all()
    assert (frames[role == "passive"][..., 0] == 0).all()
    assert (frames[role == "silent"][..., 1:] == 0).all()
    assert (lag[role == "self"] == 4).all()
    assert (lag[role == "late"] == 12).all()
    assert (np.unique(lag[role == "training"]).size == 1) == coupled
    heard = frames[role == "deviant"].sum(axis=(0, 1))
    np.testing.assert_array_equal(heard, [4, 0, 0, 0, 0, 4])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: local_global_sequence(rule="xxxYY"), "rule"),
        (lambda: local_global_sequence(tones=(3, 3)), "expected two tones"),
        (lambda: local_global_sequence(tones=(3, 10)), "a tone from 0 to 9"),
        (lambda: local_global_sequence(12), "rare chunks that fit"),
        (lambda: local_global_sequence(shares=(0.8, 0.4)), "rare chunks that fit"),
        (lambda: local_global_sequence(period=0.6), "no shorter than the tones"),
        (lambda: local_global_sequence(period=1.41), "whole frames"),
        (lambda: pair_sequence(repetition_probability=1.2), "repetition_probability"),
        (lambda: pair_sequence(tones=(2,)), "at least two different ones"),
        (lambda: pair_sequence(tones=(2, 2)), "at least two different ones"),
        (lambda: pair_sequence(n=0), "n 0"),
        (lambda: markov_sequence([[0.5, 0.4], [1.0, 0.0]]), "as many probabilities"),
        (lambda: markov_sequence([[-0.5, 1.5], [1.0, 0.0]]), "as many probabilities"),
        (lambda: markov_sequence(np.eye(3), scale=ToneScale(n_tones=4)), "4 rows"),
        (lambda: tone_events(stimuli.white_noise((4, 4), n_frames=2)), "a sequence of tones"),
        (lambda: self_sound_sequence(tone=4), "two tones of the scale"),
        (lambda: self_sound_sequence(deviant=5), "two tones of the scale"),
        (lambda: self_sound_sequence(late=0.6), "late"),
        (lambda: self_sound_sequence(0), "n_training 0"),
    ],
)
def test_bad_sequences_are_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()
