"""The problems of a run as verl's data set: every way in which rows are written, and prompts measured as they are made.

`launch` names this class in `data.custom_cls` and puts what makes the prompts into `data.prompt_makers`.
"""

from typing import Any

from verl.utils.dataset.rl_dataset import RLHFDataset

from verl_longshort.problems.verl_rows import plain_row, problem_of
from verl_longshort.verl_plugin.checks.prompts import makers_of


class ProblemDataset(RLHFDataset):
    """verl's own data set with plain rows; `data.filter_overlong_prompts` counts with every model of the run."""

    def maybe_filter_out_long_prompts(self, dataframe: Any = None) -> Any:
        """The rows, on request without those whose prompt is longer than `data.max_prompt_length`."""
        plain = dataframe.with_transform(_plain)
        if not self.filter_overlong_prompts:
            return plain
        problems = [problem_of(prompt) for prompt in dataframe["prompt"]]
        long: set[int] = set()
        for maker in makers_of(self.config):
            long |= maker.overlong(problems, self.max_prompt_length, what="measuring prompts").keys()
        return plain.select([index for index in range(len(problems)) if index not in long])


def _plain(columns: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """A batch of rows, column by column, through `plain_row`; a part of the columns stays as it is."""
    if not {"prompt", "reward_model", "extra_info"} <= columns.keys():
        return columns
    rows = [plain_row(dict(zip(columns, values, strict=True))) for values in zip(*columns.values(), strict=True)]
    return {name: [row[name] for row in rows] for name in columns}
