"""Exceptions that end a command with one line and status 1: nothing that was given is wrong."""


class RunDiedError(Exception):
    """A run ended before its time: a node or a process of it died, or something in it went wrong.

    The message says what, and where known what was going on and how to resume.
    """


class UnwrittenError(RunDiedError):
    """A run ended because a file of it cannot be written; the message is one line and complete."""


class RunStoppedError(Exception):
    """A run ended because it was asked to; the message says how to go on. The command ends with status 143."""


class UnavailableError(Exception):
    """A language model gives no answers; asking it something else will not help."""
