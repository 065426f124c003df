"""Talking to a pair in a terminal, on top of `serve/pair.py`."""
