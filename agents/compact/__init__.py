"""Compact policies over frames: the contract, one network, environments, imitation."""
