"""Registers this package with verl; loaded through the `verl.plugins` entry point in every process."""
