"""What the reward needs to know of one finished trajectory; made from facts or from a record, here and nowhere else."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from longshort_reward.protocol import ROLES, Role

SINGLE_ROLE = Role.LONG
"""The role of a model that answers alone."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One finished trajectory, as the terms of the reward see it."""

    correct: bool
    """The final answer matches the ground truth."""
    format_ok: Mapping[str, bool]
    """Per role: all its own turns are well formed. A role that made no turn may be absent."""
    tokens: int
    """Tokens that both roles generated."""
    rethinks: int
    """How often the short role asked for another thought."""
    fault_role: str | None
    """The role that broke the protocol and so ended the trajectory; None when nobody did."""
    stop_reason: str
    """Why the trajectory ended; for the reader, the built-in terms do not use it."""
    alone: bool = False
    """One model wrote it, with `SINGLE_ROLE`."""
    facts: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    """All that is known of the trajectory, for terms that need more: what `from_facts` or `from_record` was given."""

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> "Outcome":
        """From the flat facts that the agent loop recorded with a row.

        Of a pair: `acc`, `tokens`, `rethinks`, `stop_reason`, `fault_role` ("" for none) and, per role,
        `format_<role>` and `turns_<role>`. Of a single model: `acc`, `tokens`, `stop_reason`, `format` and, where it
        writes both roles' turns, `rethinks`.
        """
        single = "format" in facts
        return cls(
            correct=facts["acc"] > 0.5,
            format_ok={SINGLE_ROLE.value: facts["format"] > 0.5}
            if single
            else {role.value: facts[f"format_{role}"] > 0.5 for role in ROLES if facts[f"turns_{role}"]},
            tokens=int(facts["tokens"]),
            rethinks=int(facts.get("rethinks", 0) if single else facts["rethinks"]),
            fault_role=None if single else facts["fault_role"] or None,
            stop_reason=facts["stop_reason"],
            alone=single,
            facts=facts,
        )

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "Outcome":
        """From a graded trajectory as it is written to a file: `turns` of `{role, text, tokens, fault}`, `tokens`
        by role, `rethinks`, `stop_reason`, `fault_role` and `correct`.
        """
        faulty = {turn["role"] for turn in record["turns"] if turn.get("fault")}
        return cls(
            correct=bool(record["correct"]),
            format_ok={turn["role"]: turn["role"] not in faulty for turn in record["turns"]},
            tokens=sum(record["tokens"].values()),
            rethinks=record["rethinks"],
            fault_role=record.get("fault_role"),
            stop_reason=record["stop_reason"],
            facts=record,
        )
