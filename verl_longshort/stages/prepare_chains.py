"""`longshort prepare chains`; settings: `config/prepare_chains.yaml`; records and files: `docs/data.md`."""

from rich.console import Console

from verl_longshort.base.dry_run import absolute
from verl_longshort.base.files import sibling_path
from verl_longshort.base.requirements import Product, Requirements
from verl_longshort.base.stage import ConfigStage
from verl_longshort.data.prepare_chains import expected_chains, prepare_chains
from verl_longshort.data.prepare_settings import ChainSettings
from verl_longshort.llm.settings import asking


class PrepareChainsStage(ConfigStage[ChainSettings, None]):
    """Problems with correct chains of thought, from a file or a model (config/prepare_chains.yaml)."""

    name = "prepare chains"
    config = "prepare_chains"
    Settings = ChainSettings

    def requirements(self, settings: ChainSettings, inputs: None) -> Requirements:
        """A reasoning model is asked where no file has the chains."""
        count = expected_chains(settings)
        products = (
            Product(path=absolute(settings.output), records=count),
            Product(path=absolute(sibling_path(settings.output, "rejects"))),
        )
        return asking(self.name, settings.llm, count, products)

    def run(self, settings: ChainSettings, inputs: None, console: Console) -> None:
        """Write the chains."""
        prepare_chains(settings, console)
