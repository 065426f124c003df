"""Runs a recipe: the stages of a YAML file, one after the other, resumable.

`recipe` reads the file, `stage_process` runs one stage as a process and remembers what is done, `sequence` runs the
commands of a stage that has several, `display` shows how far the recipe is, `launcher` puts them together.
"""
