"""The settings of `longshort.early_stop`, each documented in `config/eval.yaml`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from longshort_reward.errors import UserError

from verl_longshort.config.pair import check_keys

_WHERE = "longshort.early_stop"


@dataclass(frozen=True, kw_only=True)
class EarlyStop:
    """When a long chain of thought is cut."""

    boundaries: tuple[str, ...]
    agree: int
    probe: str
    probe_tokens: int

    @classmethod
    def parse(cls, block: Mapping[str, Any]) -> "EarlyStop":
        """Check a block of plain containers. Raises UserError naming the key that cannot be used."""
        check_keys(block, _WHERE, ("boundaries", "agree", "probe", "probe_tokens"))
        boundaries, probe = block["boundaries"], block["probe"]
        if not isinstance(boundaries, list) or not boundaries or not all(map(_is_text, boundaries)):
            raise UserError(f"{_WHERE}.boundaries", boundaries, "give a list of texts that end a thought")
        if not _is_text(probe):
            raise UserError(f"{_WHERE}.probe", probe, "give the text that makes the model answer at once")
        return cls(
            boundaries=tuple(boundaries),
            agree=_whole(block, "agree", 2),
            probe=probe,
            probe_tokens=_whole(block, "probe_tokens", 1),
        )


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value != ""


def _whole(block: Mapping[str, Any], key: str, least: int) -> int:
    value = block[key]
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UserError(f"{_WHERE}.{key}", value, f"set a whole number of {least} or more")
    return value
