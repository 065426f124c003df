"""`longshort weigh`; settings: `config/weigh.yaml`; records and files: `docs/data.md`."""

from rich.console import Console

from verl_longshort.base.dry_run import absolute
from verl_longshort.base.files import Records
from verl_longshort.base.requirements import GenerationWork, Product, Requirements
from verl_longshort.base.stage import ConfigStage
from verl_longshort.data.records import Chunked, Weighed, read_stage
from verl_longshort.data.weigh import WeighSettings, weigh
from verl_longshort.engines.factory import generating, local_engine


class WeighStage(ConfigStage[WeighSettings, Records[Chunked]]):
    """Weigh thoughts by rollouts of a base model from every prefix (config/weigh.yaml)."""

    name = "weigh"
    config = "weigh"
    Settings = WeighSettings

    def inputs(self, settings: WeighSettings) -> Records[Chunked]:
        """The chains cut into thoughts."""
        return read_stage(settings.input, Chunked, key="longshort.input")

    def requirements(self, settings: WeighSettings, inputs: Records[Chunked]) -> Requirements:
        """Rollouts from the problem and from behind each thought."""
        counts = [count for count in (inputs.expected, settings.limit) if count is not None]
        count = None if inputs.expected is None else min(counts)
        engine = local_engine(
            settings.model,
            settings,
            max_num_seqs=settings.max_num_seqs,
            new_tokens=settings.max_tokens,
        )
        work = GenerationWork(
            engines=(engine,),
            records=count,
            samples=settings.budget if settings.mode == "adaptive" else settings.samples,
            per_thought=True,
            new_tokens=settings.max_tokens,
        )
        return generating(self.name, work, [Product(path=absolute(settings.output), records=count)])

    def run(self, settings: WeighSettings, inputs: Records[Chunked], console: Console) -> list[Weighed]:
        """Weigh them; returns the records."""
        return weigh(settings, inputs[: settings.limit], console)
