"""Fine-tuning of a policy with verl's own SFT trainer; `python -m` of this package is what torchrun starts."""
