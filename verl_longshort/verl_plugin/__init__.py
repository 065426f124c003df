"""Everything that imports verl: the plug-in, a CPU platform, rollout workers, trainers, `longshort doctor`."""
