"""The method, without verl: environment, joint trajectories, role views, single models and the schedule of rounds."""
