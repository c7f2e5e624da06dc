"""Sizes of the digit scenes of the tests."""

DIGITS = (24, 8, 6)
