"""Doors to the harnesses that score benchmarks."""
