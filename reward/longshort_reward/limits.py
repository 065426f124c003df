"""The two clocks of a comparison."""

WALL_FACTOR = 10.0
"""The limit counts processor time, so that a busy machine decides nothing. This many times the limit on the clock on
the wall ends a comparison that gets no processor time at all."""
