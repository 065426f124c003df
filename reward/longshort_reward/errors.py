"""Exceptions whose message is all a user needs: mistakes in what was given, and runs that lost a machine."""


class UserError(Exception):
    """A setting cannot be used. Printed as one line; the command line exits with status 2.

    `key` names the setting as the user wrote it, `value` is what it holds, `remedy` says what is wrong with
    it and what to do.
    """

    def __init__(self, key: str, value: object, remedy: str) -> None:
        super().__init__(key, value, remedy)
        self.key = key
        self.value = value
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.key} = {self.value!s}: {self.remedy}"


class RunDiedError(Exception):
    """A run ended because a node or a process of it died; no setting is wrong.

    The message says what died, what was going on and how to go on. The command line exits with status 1.
    """
