"""One model a file: a circuit named after its paper and year, exported as ``MODEL``."""
