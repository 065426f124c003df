"""Generation in this process: an engine on transformers, one on vLLM, and the factory that chooses."""
