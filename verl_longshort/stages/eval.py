"""`longshort eval`; settings: `config/eval.yaml`; files and metrics: `docs/evaluation.md`."""

from collections.abc import Sequence
from typing import Any

from longshort_reward.errors import UserError
from longshort_reward.protocol import Role
from rich.console import Console

from verl_longshort.base.dry_run import absolute
from verl_longshort.base.pair_file import KEY as PAIR_KEY
from verl_longshort.base.pair_file import with_pair
from verl_longshort.base.policy_record import prompt_warnings
from verl_longshort.base.requirements import EngineUse, GenerationWork, Product, Requirements
from verl_longshort.base.stage import ConfigStage
from verl_longshort.engines.factory import generating, local_engine
from verl_longshort.evaluation.runner import REFUSED, evaluate
from verl_longshort.evaluation.settings import EvaluationSettings, Mode
from verl_longshort.evaluation.summary import Summary
from verl_longshort.llm.settings import ENDPOINT


class EvalStage(ConfigStage[EvaluationSettings, None]):
    """Evaluate a pair or a single model on benchmarks (config/eval.yaml)."""

    name = "eval"
    config = "eval"
    Settings = EvaluationSettings

    def block(self, overrides: Sequence[str]) -> dict[str, Any]:
        """With what a `pair.json` says. Raises UserError."""
        block = super().block(overrides)
        if block["pair"] is not None and block["mode"] != Mode.PAIR:
            remedy = f"the mode {block['mode']} asks one model: give longshort.models.single instead"
            raise UserError(PAIR_KEY, block["pair"], remedy)
        # how answers are sampled is the evaluation's own choice
        return with_pair(block, overrides, without=("temperature", "top_p"))

    def requirements(self, settings: EvaluationSettings, inputs: None) -> Requirements:
        """The models, and an answer to each sample of each problem. Raises UserError for unusable problems."""
        count = settings.expected_problems()
        models, at_once = settings.engine_models, settings.max_num_seqs
        if settings.base_urls:
            names = settings.model_paths.values()
            engines = [EngineUse(model=model, name=ENDPOINT, max_num_seqs=at_once) for model in names]
        else:
            tokens = settings.limits.token_budget
            engines = [
                local_engine(model, settings, max_num_seqs=at_once, new_tokens=tokens, sharing=len(models))
                for model in models
            ]
        work = GenerationWork(
            engines=tuple(engines),
            records=count,
            samples=settings.samples,
            new_tokens=settings.limits.token_budget,
        )
        records = None if count is None else count * settings.samples
        products = (
            Product(path=absolute(settings.records_file), records=records),
            Product(path=absolute(settings.summary_file)),
        )
        return generating(self.name, work, products)

    def run(self, settings: EvaluationSettings, inputs: None, console: Console) -> Summary:
        """Answer, grade and summarise; returns the summary."""
        if settings.mode is Mode.PAIR and settings.runs_here:
            models = {Role(role): path for role, path in settings.model_paths.items()}
            for line in prompt_warnings(models, settings.prompts):
                console.print(f"warning: {line}", highlight=False, soft_wrap=True, markup=False)
        summary = evaluate(settings)
        console.print(
            f"{summary.name}: accuracy {summary.accuracy.value:.1%}, {summary.tokens.value:.1f} tokens, "
            f"{summary.problems} problems",
            highlight=False,
            soft_wrap=True,
        )
        if refused := summary.stop_reasons.get(REFUSED, 0):
            said = f"{refused} refused by the model, which count as incorrect: {settings.records_file} says why"
            console.print(f"{summary.name}: {said}", highlight=False, soft_wrap=True)
        return summary
