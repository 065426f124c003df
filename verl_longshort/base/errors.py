"""Exceptions that end a command with one line and status 1: nothing that was given is wrong."""


class RunDiedError(Exception):
    """A run ended because a node or a process of it died.

    The message says what died, what was going on and how to resume.
    """


class UnavailableError(Exception):
    """A language model gives no answers; asking it something else will not help."""
