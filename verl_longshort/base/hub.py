"""What the Hugging Face Hub's client raises, made one error with a remedy."""

from collections.abc import Iterator
from contextlib import contextmanager
from textwrap import shorten

from longshort_reward.errors import UserError

_REASON = 200  # characters of the client's own words


def hub_errors() -> tuple[type[Exception], ...]:
    """The client's errors: those of the disk and the Hub are OSErrors, wrong names ValueErrors, broken connections
    those of its HTTP library. They have no other ancestor.
    """
    import httpx

    return (OSError, ValueError, httpx.HTTPError)


def hub_reason(error: Exception) -> str:
    """What went wrong, on one line."""
    return shorten(str(error), _REASON, placeholder=" ...") or type(error).__name__


@contextmanager
def asking_hub(key: str, name: object, wanted: str) -> Iterator[None]:
    """Raises the client's errors as UserError: `name`, given as `key`, is no folder and not what the Hub gives."""
    try:
        yield
    except hub_errors() as error:
        remedy = "give a folder, or check the name, the network, and for a gated one its terms and the token (HF_TOKEN)"
        raise UserError(key, name, f"is no {wanted} that the Hub gives ({hub_reason(error)}): {remedy}") from error
