"""The agent loop of `trainer_step.py` under verl's own trainer; a module of its own, since verl's workers load it."""

import json
import os
import random
from pathlib import Path
from typing import Any

from verl.experimental.agent_loop.single_turn_agent_loop import SingleTurnAgentLoop

LENGTHS = "LONGSHORT_BENCHMARK_LENGTHS"
"""Environment variable: a file with a list of lengths in tokens."""


class GivenLengthLoop(SingleTurnAgentLoop):
    """verl's loop of one turn, each as long as one of the list, drawn at random."""

    async def run(self, sampling_params: dict[str, Any], **row: Any) -> Any:
        """As verl's."""
        length = random.choice(json.loads(Path(os.environ[LENGTHS]).read_text()))
        forced = {"max_tokens": length, "min_tokens": length, "ignore_eos": True}
        return await super().run({**sampling_params, **forced}, **row)
