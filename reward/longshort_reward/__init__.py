"""The synergy reward of Long⊗Short, usable from any verl project; imports no verl, torch or ray."""
