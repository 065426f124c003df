"""Whether the installed verl is the one that this package is made for. Light: imports no verl."""

from importlib.metadata import PackageNotFoundError, requires, version

from longshort_reward.errors import UserError
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

DISTRIBUTION = "verl-longshort"


def needed_verl() -> SpecifierSet:
    """The versions of verl that the package's metadata names."""
    try:
        listed = map(Requirement, requires(DISTRIBUTION) or ())
    except PackageNotFoundError:
        return SpecifierSet()
    return next((one.specifier for one in listed if one.name.lower() == "verl"), SpecifierSet())


def other_verl() -> str | None:
    """The version of the installed verl when it is not one of those; None when it is, or there is none."""
    try:
        found = version("verl")
    except PackageNotFoundError:
        return None
    return None if needed_verl().contains(found, prereleases=True) else found


def check_verl() -> None:
    """Raise UserError when another verl is installed than this package is made for."""
    if (found := other_verl()) is not None:
        needed = needed_verl()
        own = version(DISTRIBUTION)
        remedy = f"{DISTRIBUTION} {own} is made for verl{needed}: pip install 'verl{needed}', or another {DISTRIBUTION}"
        raise UserError("verl", found, remedy)
