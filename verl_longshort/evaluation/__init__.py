"""Runs policies on problems and measures accuracy and tokens; nothing here knows verl."""
