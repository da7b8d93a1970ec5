"""Policies and training loops on top of videogym: examples to run, read and copy."""
