"""Rollout in verl: servers, replicas and adapters of the engines, and the agent loops."""
