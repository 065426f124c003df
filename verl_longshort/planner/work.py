"""How many tokens a stage handles and how long that takes, from the assumed throughputs.

Training costs 6 FLOPs per parameter and token, 8 with gradient checkpointing (the forward pass is done
twice); scoring costs 2. The attention's own products are left out: below 10 % at such lengths.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from longshort_reward.protocol import ROLES

from verl_longshort.base.requirements import (
    EngineUse,
    FineTuningWork,
    GenerationWork,
    ReinforcementWork,
    TrainedModel,
)
from verl_longshort.engines.registry import spec_of
from verl_longshort.planner.memory import checkpoint_size
from verl_longshort.planner.models import ShapeOf
from verl_longshort.planner.step_model import Engine, StepParts, draw_trajectories
from verl_longshort.recipe.assumptions import GB, Assumptions

_REFERENCE_PARAMETERS = 8.0e9
"""The size that the throughputs of engines are stated for."""
_HOUR = 3600.0
_BF16_BYTES = 2


@dataclass(frozen=True, kw_only=True)
class Work:
    """An estimate."""

    generated: float = 0.0
    """Tokens."""
    trained: float = 0.0
    """Tokens, each counted once per pass over it."""
    hours: float = 0.0


@dataclass(frozen=True, kw_only=True)
class WorkMaker:
    """Estimates the work of stages."""

    shape_of: ShapeOf
    assumptions: Assumptions

    def generate(self, work: GenerationWork) -> Work:
        """Requests times the share of their limit that they are assumed to use."""
        assume = self.assumptions.assume
        requests = (assume.records if work.records is None else work.records) * work.samples
        if work.per_thought:
            requests *= assume.thoughts + 1
        tokens = requests * self._used(work.new_tokens)
        seconds = tokens / self._rate(work.engines)
        return Work(generated=tokens, hours=seconds / _HOUR + self._startup)

    def fine_tune(self, work: FineTuningWork) -> Work:
        """Epochs over records of the assumed length."""
        assume = self.assumptions.assume
        records = assume.records if work.records is None else work.records
        tokens = records * work.epochs * self._used(work.record_tokens)
        parameters = self.shape_of(work.trained.model).parameters
        seconds = self._compute(tokens * parameters * _update_flops(work.trained), work.trained.gpus)
        saving = parameters * work.trained.state_bytes / GB / assume.disk_gb_per_s
        return Work(trained=tokens, hours=(seconds + saving) / _HOUR + self._startup)

    def reinforce(self, work: ReinforcementWork) -> Work:
        """Steps of generation, scoring and update, validations and checkpoints."""
        assume = self.assumptions.assume
        answer = self._used(work.new_tokens)
        rows = work.prompts * work.samples
        validated = work.validations * (work.validation_problems or 0)
        generated = (work.steps * rows + validated) * answer
        engines = [policy.engine for policy in work.policies.values()]
        # turns alternate, but many trajectories are under way: engines of their own GPUs work at once
        seconds = generated / (self._rate(engines) * (1 if work.shared_pool else len(engines)))
        trained = 0.0
        for policy in work.policies.values():
            if policy.trained is not None:
                tokens = policy.updates * self._learned(work)
                seconds += self._learning(tokens, policy.trained)
                trained += tokens
        saved = work.checkpoints * sum(
            checkpoint_size(policy, self.shape_of(policy.engine.model)) for policy in work.policies.values()
        )
        seconds += saved / GB / assume.disk_gb_per_s + work.steps * assume.step_overhead_s
        return Work(generated=generated, trained=trained, hours=seconds / _HOUR + self._startup)

    def step_parts(self, work: ReinforcementWork, times: int = 1) -> StepParts:
        """An average step of a pair's run, with so many times its trajectories."""
        assume = self.assumptions.assume
        learning = sum(
            self._learning(policy.updates * self._learned(work), policy.trained) * max(policy.trained.gpus, 1)
            for policy in work.policies.values()
            if policy.trained is not None
        )
        return StepParts(
            trajectories=draw_trajectories(
                times * work.prompts * work.samples,
                tokens=self._used(work.new_tokens),
                spread=assume.length_spread,
                turns=assume.turns,
                long_share=assume.long_share,
                most=work.new_tokens,
            ),
            engines={
                role: self._decoding(policy.engine) for role, policy in zip(ROLES, work.policies.values(), strict=True)
            },
            prompt_tokens=dict.fromkeys(ROLES, min(assume.prompt_tokens, work.prompt_tokens)),
            learning_gpu_s=times * learning / work.steps,
            together=all(policy.updates == work.steps for policy in work.policies.values()),
            overhead_s=assume.step_overhead_s,
        )

    def _decoding(self, engine: EngineUse) -> Engine:
        """Of one GPU: the weights are read in each step, and with all rows it has the assumed throughput."""
        assume, parameters = self.assumptions.assume, self.shape_of(engine.model).parameters
        fast = spec_of(engine.name).fast
        rate = assume.vllm_tokens_per_s if fast else assume.transformers_tokens_per_s
        full = engine.max_num_seqs * parameters / _REFERENCE_PARAMETERS / rate
        latency = min(full, _BF16_BYTES * parameters / (self.assumptions.gpu.memory_gb_per_s * GB))
        # a prompt's tokens are computed at once, as in scoring
        prompt_flops = self.assumptions.gpu.peak_tflops * 1e12 * assume.scoring_utilization
        return Engine(
            latency_s=latency,
            row_s=(full - latency) / engine.max_num_seqs,
            prompt_token_s=2 * parameters / prompt_flops,
        )

    def _learned(self, work: ReinforcementWork) -> float:
        """Tokens that a policy learns from in a step."""
        row = min(self.assumptions.assume.prompt_tokens, work.prompt_tokens) + self._used(work.new_tokens)
        return work.prompts * work.samples * work.rows * row

    def _used(self, limit: int) -> float:
        """Tokens that are used of a limit, on average."""
        assume = self.assumptions.assume
        return min(limit * assume.used_share, assume.most_tokens)

    def _learning(self, tokens: float, trained: TrainedModel) -> float:
        assume = self.assumptions.assume
        scoring = 2 * (2 if trained.reference else 1) * assume.training_utilization / assume.scoring_utilization
        models = self.shape_of(trained.model).parameters * (2 if trained.critic else 1)
        return self._compute(tokens * models * (_update_flops(trained) + scoring), trained.gpus)

    def _compute(self, flops: float, gpus: int) -> float:
        used = self.assumptions.gpu.peak_tflops * 1e12 * self.assumptions.assume.training_utilization
        return flops / (used * max(gpus, 1))

    def _rate(self, engines: Iterable[EngineUse]) -> float:
        """Tokens per second of engines that speak in turn on the same GPUs."""
        assume = self.assumptions.assume
        rates = []
        for engine in engines:
            if engine.name == "endpoint":
                rates.append(assume.endpoint_tokens_per_s)
                continue
            fast = spec_of(engine.name).fast
            one = assume.vllm_tokens_per_s if fast else assume.transformers_tokens_per_s
            size = self.shape_of(engine.model).parameters / _REFERENCE_PARAMETERS
            rates.append(one * max(engine.gpus, 1) / size * assume.generation_utilization)
        return sum(rates) / len(rates)

    @property
    def _startup(self) -> float:
        return self.assumptions.assume.startup_minutes / 60


def _update_flops(trained: TrainedModel) -> float:
    """Per parameter and token."""
    # of LoRA: the frozen weights need no gradient of their own
    return (4.0 if trained.lora_rank else 6.0) + (2.0 if trained.checkpointing else 0.0)
