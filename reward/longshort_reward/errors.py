"""The exception whose message is all a user needs: a mistake in what was given."""


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
