"""Who plays the episodes of an iteration."""
