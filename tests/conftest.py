"""Shared by all tests. Being here puts `tests/` on the import path, for `helpers.tiny_tokenizers`."""

from hypothesis import settings

# A busy machine makes single examples slow; pytest's own timeout is the watchdog.
settings.register_profile("no_deadline", deadline=None)
settings.load_profile("no_deadline")
