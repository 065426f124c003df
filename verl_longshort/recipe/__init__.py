"""Runs a recipe: the stages of a YAML file, one after the other, resumable.

`plan` reads the file, `stage` runs one stage as a process and remembers what is done, `display` shows how
far the recipe is, `launcher` puts them together.
"""
