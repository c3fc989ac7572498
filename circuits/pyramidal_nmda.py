"""A pyramidal neuron of a few compartments whose branches carry AMPA and NMDA synapses (Brian 2).

What it predicts: H35, a network of two layers explains its rate better than a point neuron does,
by more with NMDA than without; and a single unit separates inputs that no point neuron can.
"""

from __future__ import annotations

from pcsim.brian_dendrite import DendriticNeuron

__all__ = ["MODEL"]

MODEL = DendriticNeuron()
