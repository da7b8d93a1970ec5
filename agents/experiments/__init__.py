"""Demonstrations and studies, run from beginning to end."""
