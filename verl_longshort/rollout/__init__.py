"""Rollout: the transformers engine, its verl server, and the two-policy agent loop."""
