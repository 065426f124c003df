"""Generators of problems and chains of thought, in symbols and in prose, and the base models trained on them."""
