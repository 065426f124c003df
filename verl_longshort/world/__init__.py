"""The miniature world: a generator of problems and chains of thought, and the base model trained on it."""
