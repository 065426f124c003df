"""The two clocks of a comparison."""

WALL_FACTOR = 10.0
"""The limit counts processor time, so that a busy machine decides nothing. A comparison that gets none at all for this
many times the limit on the clock on the wall is given up."""
