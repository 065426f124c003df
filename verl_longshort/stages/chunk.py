"""`longshort chunk`; settings: `config/chunk.yaml`; records and files: `docs/data.md`."""

from rich.console import Console

from verl_longshort.base.dry_run import absolute
from verl_longshort.base.files import Records
from verl_longshort.base.requirements import Product, Requirements
from verl_longshort.base.stage import ConfigStage
from verl_longshort.data.chunk import ChunkSettings, chunk
from verl_longshort.data.records import Chain, read_stage
from verl_longshort.llm.settings import asking


class ChunkStage(ConfigStage[ChunkSettings, Records[Chain]]):
    """Cut long chains of thought into thoughts (config/chunk.yaml)."""

    name = "chunk"
    config = "chunk"
    Settings = ChunkSettings

    def inputs(self, settings: ChunkSettings) -> Records[Chain]:
        """The chains."""
        return read_stage(settings.input, Chain, key="longshort.input", reject=True)

    def requirements(self, settings: ChunkSettings, inputs: Records[Chain]) -> Requirements:
        """A language model, if one is asked, reads every chain and names its blocks."""
        product = Product(path=absolute(settings.output), records=inputs.expected)
        return asking(self.name, settings.llm, inputs.expected, [product])

    def run(self, settings: ChunkSettings, inputs: Records[Chain], console: Console) -> None:
        """Cut them all."""
        chunk(settings, inputs, console, rejected=inputs.rejected)
