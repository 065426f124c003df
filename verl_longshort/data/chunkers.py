"""The chunkers by the names that `longshort.method` knows. A new one is a file of its own and a line in `CHUNKERS`."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from verl_longshort.data.llm_chunker import LLMChunker
from verl_longshort.data.records import Chain
from verl_longshort.data.rule_chunker import RuleChunker
from verl_longshort.data.steps import Block, Steps
from verl_longshort.llm.task_client import TaskClient

Chunker = Callable[[Chain, Steps], Awaitable[list[Block]]]
"""Says which of a chain's steps make a thought. Raises RejectedError for a chain that it cannot cut."""


@dataclass(frozen=True, kw_only=True)
class Tools:
    """What a chunker is made with: the settings' markers, and their language model where its spec asks for one."""

    markers: Mapping[str, Sequence[str]]
    client: TaskClient | None

    @property
    def model(self) -> TaskClient:
        """The language model."""
        assert self.client is not None, "a chunker's spec says that it asks a model"
        return self.client


@dataclass(frozen=True, kw_only=True)
class ChunkerSpec:
    """How a chunker is made, and whether it asks the language model of the block `longshort.llm`."""

    make: Callable[[Tools], Chunker]
    asks_model: bool = False


CHUNKERS: dict[str, ChunkerSpec] = {
    "rules": ChunkerSpec(make=lambda tools: RuleChunker(tools.markers)),
    "llm": ChunkerSpec(make=lambda tools: LLMChunker(tools.model), asks_model=True),
}
