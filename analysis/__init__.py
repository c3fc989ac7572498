"""One claim a file: a published neural finding as a test, exported as ``HYPOTHESIS``."""
