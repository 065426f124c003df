"""Supervised fine-tuning rows of one role, of both, or of a model alone, tokenised as the rollout tokenises them.

`TrajectoryDataset` is verl's `data.custom_cls` for SFT. It reads joint trajectories and gives one row per
trajectory and role: the sequence that the role sees, with the loss on the role's own turns; for a model that writes
alone one row per trajectory, with the loss on all turns. `sft_rows.py` reads and checks the file without torch, and
says which trajectories become rows.

A trajectory is a record of a `.jsonl` or `.parquet` file:

    {"problem": str, "turns": [{"role": "long" | "short", "text": str}, ...], ...}
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from longshort_reward.protocol import RolePrompts
from torch.utils.data import Dataset, Subset

from verl_longshort.core.policies import writers_of
from verl_longshort.core.role_view import check_tokenizer
from verl_longshort.data.sft_rows import fitting, held_out_problems, load_role_trajectories, role_row

Row = dict[str, torch.Tensor]


class TrajectoryDataset(Dataset[Row]):
    """Rows of a `role` (long, short, both or alone) for verl's `SFTTrainer` in `no_padding` mode.

    A row is `input_ids`, `position_ids` and `loss_mask`, each int64 of shape [length of the sequence]; the
    mask is 1 on the tokens of the turns that are taught. The constructor's signature is verl's; `config` is the
    `data` block with `role` and `prompts` added.

    Raises UserError for a file that cannot be used and when many sequences are longer than `data.max_length`.
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
        prompts = RolePrompts(**config["prompts"])
        records = load_role_trajectories(parquet_files, writers_of(config["role"]))
        selected = records[:max_samples] if max_samples > 0 else records
        rows = [role_row(tokenizer, roles, prompts, record) for roles, record in selected]
        kept = fitting(rows, int(config["max_length"]))
        self.problems = [selected[index].record.problem for index in kept]
        self.rows = [_tensors(*rows[index]) for index in kept]
        self.left_out = len(rows) - len(kept)
        """Rows that were too long."""

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Row:
        return self.rows[index]

    def split(self, share: float) -> tuple[Subset[Row], Subset[Row]]:
        """The rows to train on, and those of `share` of the problems."""
        chosen = held_out_problems(self.problems, share)
        parts: tuple[list[int], list[int]] = ([], [])
        for index, problem in enumerate(self.problems):
            parts[problem in chosen].append(index)
        return Subset(self, parts[0]), Subset(self, parts[1])


def _tensors(ids: list[int], mask: list[int]) -> Row:
    return {
        "input_ids": torch.tensor(ids, dtype=torch.long),
        "position_ids": torch.arange(len(ids)),
        "loss_mask": torch.tensor(mask, dtype=torch.long),
    }
