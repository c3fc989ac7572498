"""One question a file: models, hypotheses, scales and a figure, exported as ``EXPERIMENT``."""
