"""`longshort.joining=auto`: the words around a prefix, chosen by what the model can do.

A model that was trained on the tags answers between them; a chat model that was not never closes them, and none of its
rollouts ends. Which of the two it is shows behind whole chains, where the answer has been said already: the joining
with the most correct rollouts there is taken, of equal ones the one with the most that ended, then the first.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from omegaconf import OmegaConf

from verl_longshort.config.compose import CONFIG_DIR
from verl_longshort.data.records import Chunked
from verl_longshort.data.rollouts import AnswerPrompt, Prober, Rollout

AUTO = "auto"
_CHAINS, _SAMPLES = 4, 4


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What one joining gave."""

    name: str
    joining: AnswerPrompt
    rollouts: Sequence[Rollout]

    @property
    def score(self) -> tuple[int, int]:
        """Correct ones, and those that ended."""
        return sum(each.correct for each in self.rollouts), sum(each.ended for each in self.rollouts)

    def __str__(self) -> str:
        right, ended = self.score
        return f"{self.name}: {right} of {len(self.rollouts)} rollouts correct, {ended} ended"


def shipped() -> dict[str, AnswerPrompt]:
    """The joinings to choose from, by name."""
    tags = OmegaConf.select(OmegaConf.load(CONFIG_DIR / "weigh.yaml"), "longshort.joining")
    chat = OmegaConf.load(CONFIG_DIR / "joining" / "chat.yaml")
    blocks = {"tags": tags, "chat": chat}
    return {name: AnswerPrompt.parse(OmegaConf.to_container(block), name) for name, block in blocks.items()}


async def try_joinings(
    prober: Prober, records: Sequence[Chunked], room: int, joinings: Mapping[str, AnswerPrompt]
) -> list[Trial]:
    """A trial of each, the best one first; records that leave no room for a rollout are passed over."""
    trials = [await _trial(prober, records, room, name, joining) for name, joining in joinings.items()]
    return sorted(trials, key=lambda trial: trial.score, reverse=True)


async def _trial(prober: Prober, records: Sequence[Chunked], room: int, name: str, joining: AnswerPrompt) -> Trial:
    own = replace(prober, answer_prompt=joining)
    whole = ((record, own.contexts(record)[-1]) for record in records)
    fitting = [(record, context) for record, context in whole if len(context) <= room]
    groups = await asyncio.gather(
        *(
            own.sample(0, record, len(record.thoughts), context, range(_SAMPLES))
            for record, context in fitting[:_CHAINS]
        )
    )
    return Trial(name=name, joining=joining, rollouts=[each for group in groups for each in group])
