"""Benchmarks: ratios measured in one run, with their conditions."""
