"""Turns what the stages of a recipe need into memory, disk, tokens and hours. Pure Python: no verl, no torch.

`models` finds models and counts parameters, `memory` says what lies on a GPU and when, `work` how many tokens and
hours a stage takes, `machine` what is here, `estimate` puts it together, `checks` finds what cannot be, `show`
prints it all; `plan_recipe` asks the stages.
"""
