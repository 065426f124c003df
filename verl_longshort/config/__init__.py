"""Hydra configurations that ship with the package."""
