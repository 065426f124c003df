"""Supervised fine-tuning rows of one role, tokenised as the rollout tokenises them.

`TrajectoryDataset` is verl's `data.custom_cls` for SFT. It reads joint trajectories and gives one row per
trajectory: the sequence that the role sees, with the loss on the role's own turns. `load_trajectories`
reads and checks the file without torch.

A trajectory is a record of a `.jsonl` or `.parquet` file:

    {"problem": str, "turns": [{"role": "long" | "short", "text": str}, ...], ...}
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from longshort_reward.errors import UserError
from longshort_reward.protocol import Role, RolePrompts
from torch.utils.data import Dataset

from verl_longshort.core.role_view import RoleView, check_tokenizer
from verl_longshort.data.records import Trajectory, load_trajectories

Row = dict[str, torch.Tensor]


class TrajectoryDataset(Dataset[Row]):
    """Rows of one role for verl's `SFTTrainer` in `no_padding` mode.

    A row is `input_ids`, `position_ids` and `loss_mask`, each int64 of shape [length of the sequence]; the
    mask is 1 on the tokens of the role's own turns. The constructor's signature is verl's; `config` is the
    `data` block with `role` and `prompts` added.

    Raises UserError for a file that cannot be used and for a sequence longer than `data.max_length`.
    """

    def __init__(
        self,
        parquet_files: str | Path | Sequence[str | Path],
        tokenizer: Any,
        config: Mapping[str, Any],
        processor: Any = None,
        max_samples: int = -1,
    ) -> None:
        check_tokenizer(tokenizer)
        role = Role(config["role"])
        prompts = RolePrompts(**config["prompts"])
        records = load_trajectories(parquet_files, role)
        selected = records[:max_samples] if max_samples > 0 else records
        self.rows = [role_row(tokenizer, role, prompts, record) for record in selected]
        limit, longest = int(config["max_length"]), max(len(row["input_ids"]) for row in self.rows)
        # Cutting a row would teach a turn without its closing tag.
        if longest > limit:
            raise UserError("data.max_length", limit, f"the longest sequence has {longest} tokens: raise it")

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Row:
        return self.rows[index]


def role_row(tokenizer: Any, role: Role, prompts: RolePrompts, record: Trajectory) -> Row:
    """The sequence of one trajectory as `role` sees it; its own turns are tokenised alone, as they are
    generated.
    """
    view = RoleView(tokenizer, role, prompts, record.problem)
    for turn in record.turns:
        if turn.role == role:
            view.add_own(tokenizer.encode(turn.text, add_special_tokens=False), None)
        else:
            view.add_partner(turn.text)
    mask = [0] * len(view.prompt_ids) + list(view.response_mask)
    ids = torch.tensor(view.context_ids, dtype=torch.long)
    return {"input_ids": ids, "position_ids": torch.arange(len(ids)), "loss_mask": torch.tensor(mask, dtype=torch.long)}
