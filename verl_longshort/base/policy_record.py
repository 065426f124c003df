"""`longshort_policy.json`: what an exported policy is, beside its weights. Whoever uses the folder can read it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from longshort_reward.protocol import Role, RolePrompts

from verl_longshort.core.policies import roles_of

POLICY_FILE = "longshort_policy.json"
SUMMARY_FILE = "longshort_sft.json"
"""In the folder of `longshort sft`: what it was trained on, the losses, and what that cost."""


def policy_record(role: str, prompts: RolePrompts, *, base: str) -> dict[str, Any]:
    """The file's content: the role (long, short or both), both system prompts, the model that training began with."""
    return {"role": str(role), "prompts": {"long": prompts.long, "short": prompts.short}, "base": base}


def prompt_warnings(models: Mapping[Role, str], prompts: RolePrompts) -> list[str]:
    """A line for each policy, by role, that was trained for another role or with another system prompt.

    Says nothing of folders without the file, and of models on the hub.
    """
    lines = []
    for role, model in models.items():
        file = Path(model).expanduser() / POLICY_FILE
        if not file.is_file():
            continue
        try:
            record = json.loads(file.read_text(encoding="utf-8"))
            trained_for, trained = roles_of(record["role"]), str(record["prompts"][role.value])
        except (ValueError, KeyError, TypeError):
            lines.append(f"{file} cannot be read: whether the prompts are those of the training is not known")
            continue
        if role not in trained_for:
            lines.append(f"{model} was trained for the {record['role']} role and is used for the {role} role")
        elif trained != prompts.for_role(role):
            lines.append(
                f"{model} was trained with another system prompt: set longshort.environment.prompts.{role} to that in "
                f"{file}, which begins {trained[:40]!r}"
            )
    return lines
