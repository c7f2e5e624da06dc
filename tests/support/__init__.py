"""Helpers of the tests: oracles, probes, made-up runs and processes."""
