"""Sharing a pair: one folder with both models, the pair card, and the way to the Hugging Face Hub."""
