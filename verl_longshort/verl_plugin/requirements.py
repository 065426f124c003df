"""What training runs require, read from their checked and resolved configuration."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from longshort_reward.protocol import ROLES, Role
from omegaconf import DictConfig

from verl_longshort.base.dry_run import absolute, planned_gpus
from verl_longshort.base.files import absolute_model
from verl_longshort.base.requirements import (
    EngineUse,
    FineTuningWork,
    PolicyUse,
    Product,
    ReinforcementWork,
    Requirements,
    TrainedModel,
)
from verl_longshort.config.pair import Pools, settings_of
from verl_longshort.config.single_model import single_settings_of
from verl_longshort.core.policies import TIED
from verl_longshort.core.schedule import Schedule
from verl_longshort.engines.registry import spec_of
from verl_longshort.verl_plugin.checks.data_checks import read_all
from verl_longshort.verl_plugin.checks.loggers import packages_of
from verl_longshort.verl_plugin.checks.verl_checks import (
    check_dataclasses,
    has_critic,
    longest_row,
    sequence_parallel,
)
from verl_longshort.verl_plugin.sft.sft_checks import count_trajectories

_BYTES = {"fp32": 4, "float32": 4, "bf16": 2, "bfloat16": 2, "fp16": 2, "float16": 2}
_FLASH = "flash_attention_2"  # verl's default


def pair_requirements(config: DictConfig) -> Requirements:
    """Of `longshort train`; `longshort.policy_configs` holds the resolved configuration of each policy."""
    settings = settings_of(config)
    schedule, shared = settings.schedule, settings.pools is Pools.SHARED
    configs = config.longshort.policy_configs
    saved = saved_steps(schedule, config.trainer.save_freq)
    policies = {
        name: dataclasses.replace(
            _policy(configs[name], updates=schedule.updates(roles[0])),
            checkpoints=kept_copies(schedule, roles[0], saved, settings.keep_checkpoints),
        )
        for name, roles in settings.players.items()
    }
    served = [policy.engine.gpus for policy in policies.values() if policy.trained is None]
    pools = 1 if shared or served else 2
    gpus = pools * config.trainer.n_gpus_per_node + sum(served)
    steps = schedule.total_steps
    left = saved if settings.keep_checkpoints is None else [step for step in saved if schedule.ends_round(step)]
    return _requirements("train", config, policies, steps=steps, shared=shared, saved=left, limit=None, gpus=gpus)


def saved_steps(schedule: Schedule, frequency: int) -> list[int]:
    """The steps after which a pair is saved: every so many, and the ends of rounds."""
    steps = range(1, schedule.total_steps + 1) if frequency > 0 else ()
    return [step for step in steps if step % frequency == 0 or schedule.ends_round(step)]


def kept_copies(schedule: Schedule, role: Role, saved: Sequence[int], keep: int | None) -> int:
    """How many checkpoints of one policy a run has on the disk at most, while it writes one more.

    A checkpoint of a policy that did not learn since the last one shares that one's files. The best pair counts as one
    more, since it may be within a round.
    """
    learned = [step for step in range(1, schedule.total_steps + 1) if role in schedule.learners(step)]
    copy_of = {step: max((one for one in learned if one <= step), default=0) for step in saved}
    if keep is None:
        return len(set(copy_of.values()))
    most = 0
    for place in range(len(saved)):
        newest = saved[max(place - keep, 0) : place + 1]
        ends = [one for one in saved[:place] if schedule.ends_round(one)]
        most = max(most, len({copy_of[one] for one in (*newest, *ends)}))
    return most + any(not schedule.ends_round(step) for step in saved)


def single_requirements(config: DictConfig) -> Requirements:
    """Of `longshort train-single`."""
    steps, trainer = single_settings_of(config).steps, config.trainer
    policies = {"": _policy(config, updates=steps)}
    saved, limit, gpus = _every(trainer.save_freq, steps), trainer.max_actor_ckpt_to_keep, trainer.n_gpus_per_node
    return _requirements(
        "train-single", config, policies, steps=steps, shared=True, saved=saved, limit=limit, gpus=gpus
    )


def sft_requirements(config: DictConfig) -> Requirements:
    """Of `longshort sft`. Raises UserError for a part of the configuration that verl rejects."""
    check_dataclasses(config, ("engine", "optim", "checkpoint", "profiler"), models=("model",))
    data, trainer = config.data, config.trainer
    padded = data.max_length * data.micro_batch_size_per_gpu
    trained = _trained(
        config.model,
        config.engine,
        config.optim,
        gpus=trainer.nnodes * trainer.n_gpus_per_node,
        tokens=data.max_token_len_per_gpu if data.use_dynamic_bsz else padded,
        sequence_parallel=config.engine.ulysses_sequence_parallel_size,
    )
    records, epochs = count_trajectories(config), trainer.total_epochs
    work = FineTuningWork(trained=trained, records=records, epochs=epochs, record_tokens=data.max_length)
    output = absolute(str(config.longshort.output_dir))
    product = Product(path=output, model=trained.model, bytes_per_parameter=trained.state_bytes)
    # the run chooses its device when it starts; a recipe may have chosen the CPU in the environment
    on_gpu = trainer.device == "cuda" and planned_gpus() != 0
    return Requirements(
        command="sft",
        work=work,
        gpus_per_node=trainer.n_gpus_per_node if on_gpu else 0,
        nodes=trainer.nnodes,
        products=(product,),
        packages=_attention(config.model) if on_gpu else (),
    )


def _requirements(
    command: str,
    config: DictConfig,
    policies: Mapping[str, PolicyUse],
    *,
    steps: int,
    shared: bool,
    saved: Sequence[int],
    limit: int | None,
    gpus: int,
) -> Requirements:
    """Of reinforcement learning for `steps` that leaves checkpoints of `saved`, at most `limit`, on `gpus` per node."""
    data, trainer = config.data, config.trainer
    problems = read_all(data.val_files, key="data", columns=()).expected
    if problems is not None and data.val_max_samples > 0:
        problems = min(problems, data.val_max_samples)
    work = ReinforcementWork(
        policies=policies,
        shared_pool=shared,
        steps=steps,
        prompts=data.train_batch_size,
        rows=len(ROLES) if TIED in policies else 1,
        samples=config.actor_rollout_ref.rollout.n,
        prompt_tokens=data.max_prompt_length,
        new_tokens=data.max_response_length,
        validations=len(_every(trainer.test_freq, steps)) + bool(trainer.get("val_before_train", True)),
        validation_problems=problems,
        checkpoints=len(saved) if limit is None else min(len(saved), limit),
    )
    root = absolute(str(trainer.default_local_dir))
    products = [
        Product(
            path="/".join(part for part in (root, role, f"global_step_{step}", "actor", folder) if part),
            model=policy.engine.model,
        )
        for role, policy in policies.items()
        if policy.trained is not None
        for step in saved
        for folder in ("huggingface", *(["adapter"] if policy.trained.lora_rank else []))
    ]
    on_gpu = trainer.device == "cuda"
    engines = {spec_of(policy.engine.name).package for policy in policies.values()}
    on_gpus = (*sorted(filter(None, engines)), *_attention(config.actor_rollout_ref.model))
    return Requirements(
        command=command,
        work=work,
        gpus_per_node=gpus if on_gpu else 0,
        nodes=trainer.nnodes,
        products=(*products, Product(path=f"{root}/best.json")),
        packages=(*packages_of(trainer.logger), *on_gpus) if on_gpu else packages_of(trainer.logger),
        notes=tuple(config.longshort.notes or ()),
    )


def _policy(config: DictConfig, *, updates: int) -> PolicyUse:
    rollout = config.actor_rollout_ref.rollout
    world = config.trainer.nnodes * config.trainer.n_gpus_per_node
    if not updates:
        served = rollout.nnodes * rollout.n_gpus_per_node
        return PolicyUse(engine=_engine(config, served), trained=None, updates=0)
    trained = _actor(config, world)
    checkpoint = config.actor_rollout_ref.actor.checkpoint
    parts = {"model": 1.0, "hf_model": 1.0, "optimizer": trained.optimizer_values}
    # of LoRA, the optimizer's part and the export's second folder are the adapters'
    adapted = {"optimizer", *(["model"] if checkpoint.save_lora_only else [])} if trained.lora_rank else set()
    saved = {part: parts[part] * trained.state_bytes for part in checkpoint.save_contents if part in parts}
    adapters = sum(size for part, size in saved.items() if part in adapted or (part == "hf_model" and adapted))
    return PolicyUse(
        engine=_engine(config, world),
        trained=trained,
        updates=updates,
        checkpoint_bytes=sum(size for part, size in saved.items() if part not in adapted),
        adapter_bytes=adapters,
    )


def _engine(config: DictConfig, gpus: int) -> EngineUse:
    rollout = config.actor_rollout_ref.rollout
    return EngineUse(
        model=absolute_model(str(config.actor_rollout_ref.model.path)),
        name=str(rollout.name),
        gpus=gpus if config.trainer.device == "cuda" else 0,
        tensor_parallel=rollout.tensor_model_parallel_size,
        memory_share=rollout.gpu_memory_utilization,
        max_length=rollout.max_model_len or longest_row(config),
        max_num_seqs=rollout.max_num_seqs,
        bytes_per_value=_BYTES.get(str(rollout.dtype), 2),
        sleeps=bool(rollout.free_cache_engine),
    )


def _actor(config: DictConfig, gpus: int) -> TrainedModel:
    from verl.trainer.ppo.utils import need_reference_policy

    own, longest = config.actor_rollout_ref, longest_row(config)
    actor, rollout = own.actor, own.rollout
    padded = (actor.ppo_micro_batch_size_per_gpu or 1) * longest
    scored = (rollout.log_prob_micro_batch_size_per_gpu or 1) * longest
    return _trained(
        own.model,
        actor.fsdp_config,
        actor.optim,
        gpus=gpus,
        tokens=actor.ppo_max_token_len_per_gpu if actor.use_dynamic_bsz else padded,
        sequence_parallel=sequence_parallel(actor),
        forward_tokens=rollout.log_prob_max_token_len_per_gpu if actor.use_dynamic_bsz else scored,
        copies_logits=rollout.temperature != 1,
        entropy=bool(actor.entropy_coeff or actor.calculate_entropy),
        reference=need_reference_policy(config),
        merges=bool(own.model.lora_rank and own.model.lora.merge),
        critic=absolute_model(str(config.critic.model.path)) if has_critic(config) else None,
    )


def _trained(
    model: DictConfig, engine: DictConfig, optimizer: DictConfig, *, gpus: int, tokens: int, **more: Any
) -> TrainedModel:
    precision = engine.get("mixed_precision") or {}
    return TrainedModel(
        model=absolute_model(str(model.path)),
        gpus=gpus,
        shards=gpus if engine.fsdp_size in (-1, 0) else min(engine.fsdp_size, gpus),
        state_bytes=_BYTES.get(str(engine.model_dtype or "fp32"), 4),
        compute_bytes=_BYTES.get(str(precision.get("param_dtype", "bf16")), 2),
        # two moments, of one byte each with an 8-bit optimizer; in units of fp32
        optimizer_values=0.5 if "8bit" in str(optimizer.optimizer) else 2.0,
        param_offload=engine.param_offload,
        optimizer_offload=engine.optimizer_offload,
        cpu_policy=engine.offload_policy,
        compiled=engine.use_torch_compile,
        lora_rank=model.lora_rank,
        tokens=tokens,
        checkpointing=model.enable_gradient_checkpointing,
        activation_offload=model.enable_activation_offload,
        fused_head=model.use_fused_kernels,
        chunked_entropy=engine.entropy_from_logits_with_chunking,
        keeps_gradients_whole=engine.use_no_sync_for_gradient_accumulation,
        **more,
    )


def _attention(model: DictConfig) -> tuple[str, ...]:
    chosen = (model.override_config or {}).get("attn_implementation", _FLASH)
    return ("flash_attn",) if chosen == _FLASH or model.use_remove_padding else ()


def _every(frequency: int, steps: int) -> list[int]:
    """The steps at which verl saves or validates: every so many, and the last."""
    return [s for s in range(1, steps + 1) if s % frequency == 0 or s == steps] if frequency > 0 else []
