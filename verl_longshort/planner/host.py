"""Host memory of training without an accelerator: what a GPU would hold lies there, for all ranks of a node at once.

The parts are those of `memory.py`. What they add up to is the most that the settings allow; `warn_of_memory` says so
before a training on this machine, and a dry run counts it as a mistake, as it does for GPUs.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import psutil

from verl_longshort.base.console import say
from verl_longshort.base.requirements import FineTuningWork, PolicyUse, ReinforcementWork, Requirements, TrainedModel
from verl_longshort.planner.memory import activations, logits, state_memory
from verl_longshort.planner.models import Models, ModelShape, ShapeOf
from verl_longshort.recipe.assumptions import GIB

PROCESSES = 4.0 * GIB
"""Python, torch and Ray in the twenty processes of a run; measured on a miniature pair: 4.7 GiB in all."""

RAY_SHARE = 0.95
"""Of the machine's memory; Ray ends processes above it (RAY_memory_usage_threshold)."""

_LIMIT = Path("/sys/fs/cgroup/memory.max")
_SHOWN_PARTS = 3
_LIMITS = tuple(2**power for power in range(16, 7, -1))


def machine_bytes() -> float:
    """Memory of this machine, or of the container in it."""
    total = psutil.virtual_memory().total
    limit = _LIMIT.read_text().strip() if _LIMIT.is_file() else "max"
    return float(min(total, int(limit)) if limit.isdigit() else total)


def host_parts(needs: Requirements, shape_of: ShapeOf) -> dict[str, float]:
    """Bytes of each part of what a command on the CPU holds at most; empty for one that trains nothing there."""
    work = needs.work
    if needs.gpus_per_node:
        return {}
    if isinstance(work, FineTuningWork):
        parts = _update("", work.trained, work.trained.tokens, shape_of)
    elif isinstance(work, ReinforcementWork):
        parts = _largest(work, shape_of)
    else:
        return {}
    return {**parts, "processes": PROCESSES}


def fitting_tokens(needs: Requirements, shape_of: ShapeOf, memory: float) -> int | None:
    """The most tokens of a micro batch, a power of two, that a machine with `memory` bytes trains on; None: too few.

    A micro batch holds at least the longest row.
    """
    work = needs.work
    if isinstance(work, FineTuningWork):
        longest, most = work.record_tokens, work.trained.tokens
    elif isinstance(work, ReinforcementWork):
        learners = [policy.trained for policy in work.policies.values() if policy.trained is not None]
        longest = work.prompt_tokens + work.new_tokens
        most = max((one.tokens for one in learners), default=0)
    else:
        return None
    limits = [limit for limit in _LIMITS if longest <= limit < most]
    bounded = {limit: host_parts(_bounded(needs, limit), shape_of) for limit in limits}
    return next((limit for limit in limits if sum(bounded[limit].values()) <= RAY_SHARE * memory), None)


def _bounded(needs: Requirements, limit: int) -> Requirements:
    """With micro batches of `limit` tokens at most."""

    def bound(trained: TrainedModel) -> TrainedModel:
        return replace(trained, tokens=limit, forward_tokens=limit)

    work = needs.work
    if isinstance(work, FineTuningWork):
        return replace(needs, work=replace(work, trained=bound(work.trained)))
    assert isinstance(work, ReinforcementWork)
    policies = {
        role: replace(policy, trained=bound(policy.trained)) if policy.trained else policy
        for role, policy in work.policies.items()
    }
    return replace(needs, work=replace(work, policies=policies))


def host_problem(parts: Mapping[str, float], memory: float, tokens: int | None = None) -> str | None:
    """What is wrong when these parts may be more than a machine with `memory` bytes has; None: nothing.

    `tokens`: of a micro batch that would fit.
    """
    total = sum(parts.values())
    if total <= RAY_SHARE * memory:
        return None
    named = sorted(parts.items(), key=lambda item: -item[1])[:_SHOWN_PARTS]
    listed = ", ".join(f"{part} {size / GIB:.1f}" for part, size in named)
    fits = f" ({tokens} fit)" if tokens else ""
    return (
        f"may take {total / GIB:.0f} GiB of host memory on a machine with {memory / GIB:.0f}, where Ray ends processes "
        f"above {RAY_SHARE:.0%}; most of it: {listed}. Lower the tokens of a micro batch{fits} "
        "(actor_rollout_ref.actor.ppo_max_token_len_per_gpu, data.max_token_len_per_gpu), or set "
        "use_fused_kernels or enable_gradient_checkpointing of the model"
    )


def warn_of_memory(needs: Requirements) -> None:
    """Say that a training on this machine may run out of memory."""
    models = Models({}, offline=True)

    def shape_of(name: str) -> ModelShape:
        found = models.find(name).shape
        if found is None:
            raise LookupError(name)
        return found

    memory = machine_bytes()
    try:
        problem = host_problem(host_parts(needs, shape_of), memory, fitting_tokens(needs, shape_of, memory))
    except LookupError:
        # a model of another family: its shape says nothing
        return
    if problem:
        say(f"note: {needs.command} {problem}")


def _largest(work: ReinforcementWork, shape_of: ShapeOf) -> dict[str, float]:
    """Parts of the phase that needs most: one policy learns, the others and all engines keep what they hold."""
    rows = work.prompts * work.samples * work.rows * (work.prompt_tokens + work.new_tokens)
    held = {f"engine {role}".strip(): _engine(policy, shape_of) for role, policy in work.policies.items()}
    phases = []
    for learner, policy in work.policies.items():
        if policy.trained is None:
            continue
        parts = {**held, **_update(learner, policy.trained, min(policy.trained.tokens, rows), shape_of)}
        for other, partner in work.policies.items():
            if other != learner and partner.trained is not None:
                parts[f"state of {other}"] = _state(partner.trained, shape_of, learning=False)
        phases.append(parts)
    return max(phases, key=lambda parts: sum(parts.values()))


def _update(name: str, trained: TrainedModel, tokens: int, shape_of: ShapeOf) -> dict[str, float]:
    shape, ranks = shape_of(trained.model), trained.gpus
    bounded = replace(trained, tokens=tokens, forward_tokens=min(trained.forward_tokens, tokens))
    of = f" of {name}" if name else ""
    return {
        f"weights, gradients and optimizer{of}": _state(trained, shape_of, learning=True),
        f"activations{of}": activations(bounded, shape) * ranks,
        f"logits{of}": logits(bounded, shape) * ranks,
    }


def _state(trained: TrainedModel, shape_of: ShapeOf, *, learning: bool) -> float:
    """Of all ranks: a GPU's share and what goes with it in the host are the same memory here."""
    total = 0.0
    for model in (trained.model, *([trained.critic] if trained.critic else [])):
        state = state_memory(replace(trained, cpu_policy=False), shape_of(model))
        stored = state.weights + state.moments + (state.gradients if learning else 0.0)
        copies = (trained.reference and not trained.lora_rank) + trained.merges if model == trained.model else 0
        total += stored * trained.gpus + shape_of(model).parameters * trained.state_bytes * copies
    return total


def _engine(policy: PolicyUse, shape_of: ShapeOf) -> float:
    engine = policy.engine
    return float(shape_of(engine.model).parameters * engine.bytes_per_value)
