"""Policies, one module each."""
