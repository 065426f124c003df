"""`longshort prepare problems`; settings: `config/prepare_problems.yaml`; files: `docs/data.md`."""

from rich.console import Console

from verl_longshort.base.dry_run import absolute
from verl_longshort.base.requirements import Product, Requirements
from verl_longshort.base.stage import ConfigStage
from verl_longshort.data.prepare_problems import prepare_problems, split_problems
from verl_longshort.data.prepare_settings import TrainingProblemSettings
from verl_longshort.problems.held_out import hold_out
from verl_longshort.problems.sources import is_here


class PrepareProblemsStage(ConfigStage[TrainingProblemSettings, None]):
    """Problems for RL, apart from those of the tests (config/prepare_problems.yaml)."""

    name = "prepare problems"
    config = "prepare_problems"
    Settings = TrainingProblemSettings

    def requirements(self, settings: TrainingProblemSettings, inputs: None) -> Requirements:
        """Files. How many problems are left for training is known before where the sources are files."""
        train, plan = None, settings.readable
        if all(is_here(source) for source in plan.source):
            train = len(split_problems(plan).train)
        else:
            hold_out(plan.held_out, plan.similarity, plan.benchmark_dir)
        counts = {"train.parquet": train, "val.parquet": settings.val_problems}
        files = {**counts, "dropped.jsonl": None, "card.json": None, "card.md": None}
        products = (Product(path=absolute(settings.output_dir / name), records=count) for name, count in files.items())
        return Requirements(command=self.name, products=tuple(products))

    def run(self, settings: TrainingProblemSettings, inputs: None, console: Console) -> None:
        """Write the rows."""
        prepare_problems(settings, console)
