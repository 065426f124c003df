"""The trainer of the pair: schedule of rounds, group rewards, checkpoints, launch."""
