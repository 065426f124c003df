"""Fine-tuning of one role with verl's own SFT trainer; `python -m` of this package is what torchrun starts."""
