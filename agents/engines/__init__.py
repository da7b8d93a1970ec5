"""Rollout engines: contexts in, sampled tokens out. One module per engine."""
