"""A run around its trainer: the cluster, its processes and who watches them, what it is doing, how it is stopped."""
