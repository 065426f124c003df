"""What Python 3.10 lacks and this package uses."""

from enum import Enum


class StrEnum(str, Enum):
    """A string enumeration whose members print as their value (`enum.StrEnum` from Python 3.11 on)."""

    __str__ = str.__str__

    def __format__(self, format_spec: str) -> str:
        return str.__format__(self, format_spec)
