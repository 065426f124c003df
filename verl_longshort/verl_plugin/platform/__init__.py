"""A CPU platform and CPU training engines for verl."""
