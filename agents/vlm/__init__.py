"""Rollouts of language models: layout, environment, record, policy, scoring, evaluation."""
