"""`longshort coldstart`; settings: `config/coldstart.yaml`; records and files: `docs/data.md`."""

from rich.console import Console

from verl_longshort.base.dry_run import absolute
from verl_longshort.base.files import Records
from verl_longshort.base.requirements import Product, Requirements
from verl_longshort.base.stage import ConfigStage
from verl_longshort.data.records import Selected, Weighed, read_stage
from verl_longshort.data.synthesis import SynthesisSettings, coldstart
from verl_longshort.llm.settings import asking

FILES = ("train.jsonl", "val.jsonl", "dropped.jsonl", "card.json", "card.md")


class ColdStartStage(ConfigStage[SynthesisSettings, Records[Weighed]]):
    """Make joint trajectories for SFT from weighed thoughts (config/coldstart.yaml)."""

    name = "coldstart"
    config = "coldstart"
    Settings = SynthesisSettings

    def inputs(self, settings: SynthesisSettings) -> Records[Weighed]:
        """The weighed chains; with a choice in them where no rule makes one."""
        kind = Selected if settings.rule is None else Weighed
        return read_stage(settings.input, kind, key="longshort.input")

    def requirements(self, settings: SynthesisSettings, inputs: Records[Weighed]) -> Requirements:
        """A language model, if one is asked, fills the gaps of every chain."""
        chains = inputs.expected
        shares = {"train.jsonl": 1 - settings.val_percent / 100, "val.jsonl": settings.val_percent / 100}
        counts = {} if chains is None else {name: round(chains * share) for name, share in shares.items()}
        paths = {name: absolute(settings.output_dir / name) for name in FILES}
        products = [Product(path=path, records=counts.get(name)) for name, path in paths.items()]
        return asking(self.name, settings.llm, chains, products)

    def run(self, settings: SynthesisSettings, inputs: Records[Weighed], console: Console) -> None:
        """Make trajectories and data card."""
        coldstart(settings, inputs, console)
