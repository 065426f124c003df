"""Turns what the stages of a recipe need into memory, disk, tokens and hours. Pure Python: no verl, no torch.

`shapes` counts parameters, `models` finds models, `memory` and `tables` say what lies on a GPU and when,
`work` how many tokens and hours a stage takes, `machine` what is here, `estimate` puts it together, `checks`
finds what cannot be, `show` prints it all.
"""
