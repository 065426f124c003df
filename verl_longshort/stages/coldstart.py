"""`longshort coldstart`; settings: `config/coldstart.yaml`; records and files: `docs/data.md`."""

from rich.console import Console

from verl_longshort.base.dry_run import absolute
from verl_longshort.base.files import Records
from verl_longshort.base.requirements import GenerationWork, Product, Requirements
from verl_longshort.base.stage import ConfigStage
from verl_longshort.data.records import Selected, Weighed, read_stage
from verl_longshort.data.synthesis import SynthesisSettings, coldstart
from verl_longshort.engines.factory import generating
from verl_longshort.llm.settings import asked_model

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
        products = tuple(
            Product(
                path=absolute(settings.output_dir / name),
                records=None if chains is None or name not in shares else round(chains * shares[name]),
            )
            for name in FILES
        )
        if settings.llm is None:
            return Requirements(command=self.name, products=products)
        work = GenerationWork(
            engines=(asked_model(settings.llm),),
            records=chains,
            new_tokens=settings.llm.max_tokens,
        )
        return generating(self.name, work, products)

    def run(self, settings: SynthesisSettings, inputs: Records[Weighed], console: Console) -> None:
        """Make trajectories and data card."""
        coldstart(settings, inputs, console)
