"""What Python 3.10 lacks and this package uses."""

from enum import Enum


class StrEnum(str, Enum):
    """A string enumeration whose members print as their value (`enum.StrEnum` from Python 3.11 on)."""

    __str__ = str.__str__
    __format__ = str.__format__
