"""Keys of verl that a run would accept and ignore, or that break it: refused by name where a user changes them.

Each entry says in a comment where verl 0.9.1 shows it. Keys that are not listed do in a run what verl says of them.
"""

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from longshort_reward.errors import UserError
from longshort_reward.protocol import ROLES
from omegaconf import DictConfig, OmegaConf

PAIR_LOOP, SINGLE_LOOP = "longshort", "longshort_single"
"""The agent loops of `rollout/agent_loop.py`, and the trainers that learn from their rows."""

_UNREAD = "verl's V1 trainer does not read it; leave it out"
_GRADED = "the agent loop grades by longshort.reward; leave it out"
_PROFILED = "a pair is not profiled: profile a policy alone with `longshort train-single`, or leave it out"
_LENGTH = "the longshort block decides how long a run is; leave it null"
_TEXT = "prompts are text, made by chat template and system message alone; leave it out"
_SYNC = "belongs to asynchronous training, and a run is synchronous; leave it out"
_OWN_BUFFER = "the run brings its own replay buffer; leave it out"
_MEGATRON = "verl's Megatron engine reads it, FSDP does not: see actor_rollout_ref.model.lora_rank"
_LOOP = "the run's own agent loop has no such turns or tools; leave it out"

EVERY_RUN: Mapping[str, str] = {
    # PairTrainer and SingleTrainer set it
    "trainer.total_training_steps": _LENGTH,
    "trainer.total_epochs": _LENGTH,
    # reward loop workers do not grade what has a reward_score (experimental/agent_loop/agent_loop.py, _compute_score)
    "reward": _GRADED,
    "custom_reward_function": _GRADED,
    "reward_model": _GRADED,
    "sandbox_fusion": _GRADED,
    # trainer/ppo/ray_trainer.py:229 resamples rows of GAE, whose keys V1 keeps; nothing else reads it
    "algorithm.use_pf_ppo": "would put the advantages of other rows on a row in verl's V1 trainer; set false",
    "algorithm.pf_ppo": _UNREAD,
    # read by the trainers before V1 only
    "trainer.balance_batch": "verl's V1 trainer always balances; leave it out",
    "trainer.esi_redundant_time": _UNREAD,
    "actor_rollout_ref.hybrid_engine": _UNREAD,
    "actor_rollout_ref.rollout.over_sample_rate": _UNREAD,
    "actor_rollout_ref.rollout.multi_stage_wake_up": "SGLang alone reads it; leave it out",
    "actor_rollout_ref.rollout.agent.custom_async_server": _UNREAD,
    "actor_rollout_ref.actor.use_prefix_grouper": _UNREAD,
    "critic.forward_max_token_len_per_gpu": _UNREAD,
    # config/model.py: "megatron lora config"; merge is the one key of the block that all engines read
    **{
        f"actor_rollout_ref.model.lora.{name}": _MEGATRON
        for name in (
            "type",
            "rank",
            "alpha",
            "dropout",
            "target_modules",
            "exclude_modules",
            "dropout_position",
            "lora_A_init_method",
            "lora_B_init_method",
            "a2a_experimental",
            "dtype",
            "adapter_path",
            "freeze_vision_model",
            "freeze_vision_projection",
            "freeze_language_model",
        )
    },
    # trainer_base.py:292 hands over profile_steps and device_name only
    "trainer.ray_wait_register_center_timeout": _UNREAD,
    # transformer_impl.py:1337 looks for it in the batch, where V1 does not put it
    "actor_rollout_ref.actor.calculate_sum_pi_squared": _UNREAD,
    # trainer_base.py:380
    "actor_rollout_ref.rollout.checkpoint_engine.backend": "verl sets naive where training and engines share devices",
    # agent_loop_tq.py:96 ("add trace support"): no trajectory is traced
    "actor_rollout_ref.rollout.trace": _UNREAD,
    # needs routed_experts of the agent loop
    "actor_rollout_ref.rollout.enable_rollout_routing_replay": "the run's agent loop records no routes; set false",
    "actor_rollout_ref.rollout.moe_load_balance_metrics_interval": "the run's agent loop records no routes; set 0",
    # agent loops of verl read these (tool_agent_loop.py, single_turn_agent_loop.py)
    "actor_rollout_ref.rollout.multi_turn": _LOOP,
    "actor_rollout_ref.rollout.agent.agent_loop_config_path": _LOOP,
    "data.tool_config_path": _LOOP,
    "data.function_tool_path": _LOOP,
    "data.apply_chat_template_kwargs": (
        "prompts are made by the chat template alone: give a template that has them set "
        "(actor_rollout_ref.model.custom_chat_template), and leave it out"
    ),
    "data.prompt_key": "rows have their problem under prompt: rename the column",
    "data.reward_fn_key": "rows name their source under data_source: rename the column",
    "data.truncation": "no prompt is truncated: see data.filter_overlong_prompts",
    "data.tokenizer": "each model brings its own: actor_rollout_ref.model.tokenizer_path",
    "data.trust_remote_code": "set actor_rollout_ref.model.trust_remote_code",
    # rl_dataset.py: __getitem__ returns neither
    "data.return_raw_input_ids": _UNREAD,
    "data.return_raw_chat": _UNREAD,
    "data.return_full_prompt": _UNREAD,
    "data.return_multi_modal_inputs": _TEXT,
    "data.mm_processor_kwargs": _TEXT,
    "data.image_patch_size": _TEXT,
    "data.image_key": _TEXT,
    "data.video_key": _TEXT,
    "data.audio_key": _TEXT,
    # the run's data set counts prompts in one process (checks/prompts.py)
    "data.filter_overlong_prompts_workers": "prompts are measured in one process; leave it out",
    "actor_rollout_ref.rollout.prompt_length": "set data.max_prompt_length",
    "actor_rollout_ref.rollout.response_length": "the budgets of the longshort block decide it; leave it out",
    "actor_rollout_ref.rollout.ignore_eos": "a turn ends with its end token; set false",
    "trainer.use_v1": "the trainers are made for verl's V1 trainer; leave it true",
    "trainer.v1.sync": _UNREAD,
    "trainer.v1.colocate_async": _SYNC,
    "trainer.v1.separate_async": _SYNC,
    # replay_buffer.py:97: a synchronous run is on-policy
    "trainer.v1.sampler": _OWN_BUFFER,
    "distillation": "distillation is not supported; leave it out",
    # read by the trainers before V1 and by fully_async_policy
    "skip.rollout": _UNREAD,
    "skip.async_rollout": _UNREAD,
    "skip.rollout_tq": "recorded trajectories are not replayed; leave it out",
}
"""Key, or beginning of keys, and what to do instead; for a pair and for a single model."""

PAIR: Mapping[str, str] = {
    # PairTrainer saves by itself, and so the callback that PPOTrainer.__init__ builds is never called
    "trainer.checkpoint_callback_class": "a pair saves its checkpoints by itself and calls nobody; leave it out",
    # both policies would write to one folder, and pair.json to none
    "trainer.default_hdfs_dir": "a pair is saved in trainer.default_local_dir alone; leave it out",
    # PolicyTrainer's step is given its rows: PairTrainer overrides the hooks that start a profiler
    "global_profiler": _PROFILED,
    "actor_rollout_ref.actor.profiler": _PROFILED,
    "actor_rollout_ref.ref.profiler": _PROFILED,
    "actor_rollout_ref.rollout.profiler": _PROFILED,
    "critic.profiler": _PROFILED,
    # the tracker names a checkpoint as soon as it is written
    "actor_rollout_ref.actor.checkpoint.async_save": "a checkpoint must be whole when it is named; set false",
    "critic.checkpoint.async_save": "a checkpoint must be whole when it is named; set false",
}
"""As `EVERY_RUN`, for a pair alone."""

SINGLE: Mapping[str, str] = {
    # trainer_base.py:745 sets it
    "actor_rollout_ref.actor.optim.total_training_steps": _LENGTH,
    "critic.optim.total_training_steps": _LENGTH,
}
"""As `EVERY_RUN`, for a single model alone."""

_READ_WITHOUT_DEFAULT = {
    "data": ("cache_dir",),
    "trainer": ("wandb_proxy", "rl_insight", "remove_previous_ckpt_in_save"),
}
"""Keys that verl reads and its files do not have."""

FOR_THE_RUN = (
    "data",
    "reward",
    "distillation",
    "transfer_queue",
    "global_profiler",
    "skip",
    "ray_kwargs",
    "algorithm.filter_groups",
    "actor_rollout_ref.hybrid_engine",
    # the agent loops, which ask both policies, read the run's own
    *(
        f"actor_rollout_ref.rollout.{name}"
        for name in (
            "n",
            "temperature",
            "top_p",
            "top_k",
            "do_sample",
            "val_kwargs",
            "calculate_log_probs",
            "agent",
            "multi_turn",
            "trace",
            "prompt_length",
            "response_length",
        )
    ),
)
"""Keys that one policy cannot have for itself: the run's value is used."""

OF_A_POLICY = ("trainer.nnodes", "trainer.n_gpus_per_node", "trainer.critic_warmup")
"""The keys of `trainer` that one policy can have for itself, beside those of its checkpoints."""

_VERLS_MODES = ("sync", "colocate_async", "separate_async")
_RESUME_MODES = ("auto", "disable", "resume_path")


def check_keys(config: DictConfig, defaults: DictConfig, *, agent_loop: str) -> None:
    """Check the composed, unresolved configuration of a run against its defaults.

    Args:
        agent_loop: the run's own, which has the name of its trainer.

    Raises:
        UserError: for the first key that would be ignored or would break the run.
    """
    tables = {**EVERY_RUN, **(PAIR if agent_loop == PAIR_LOOP else SINGLE)}
    known, given = _leaves(defaults), _leaves(config)
    for prefix, remedy in tables.items():
        for key in sorted(given.keys() | known.keys()):
            if _below(key, prefix) and given.get(key) != known.get(key):
                raise UserError(key, _shown(config, key), remedy)
    for block, more in _READ_WITHOUT_DEFAULT.items():
        names = [str(name) for name in defaults[block]]
        for name in map(str, config[block]):
            if name not in names and name not in more:
                near = get_close_matches(name, names, n=1)
                hint = f"did you mean {block}.{near[0]}?" if near else "leave it out"
                raise UserError(f"{block}.{name}", _shown(config, f"{block}.{name}"), f"verl reads no such key; {hint}")
    for name in map(str, config):
        if name not in defaults:
            raise UserError(name, config[name], "nobody reads such a key; leave it out")
    _check_choices(config, agent_loop)
    _check_policies(config, tables)


def _check_choices(config: DictConfig, agent_loop: str) -> None:
    trainer, chosen = config.trainer, config.actor_rollout_ref.rollout.agent.default_agent_loop
    if trainer.v1.trainer_mode in {*_VERLS_MODES, PAIR_LOOP, SINGLE_LOOP} - {agent_loop}:
        remedy = f"this command trains with {agent_loop}; leave it out"
        raise UserError("trainer.v1.trainer_mode", trainer.v1.trainer_mode, remedy)
    if chosen != agent_loop:
        key = "actor_rollout_ref.rollout.agent.default_agent_loop"
        raise UserError(key, chosen, f"the trainer learns from the rows of {agent_loop} alone; leave it out")
    if trainer.resume_mode not in _RESUME_MODES:
        raise UserError("trainer.resume_mode", trainer.resume_mode, f"must be one of {', '.join(_RESUME_MODES)}")
    if config.data.custom_cls.path is not None and config.data.filter_overlong_prompts:
        remedy = "your own data set (data.custom_cls) must leave long prompts out by itself; set false"
        raise UserError("data.filter_overlong_prompts", True, remedy)


def _check_policies(config: DictConfig, tables: Mapping[str, str]) -> None:
    policies = OmegaConf.select(config, "longshort.policies")
    for role in () if policies is None else ROLES:
        where = f"longshort.policies.{role}"
        for key, value in _leaves(policies[role.value]).items():
            for prefix, remedy in tables.items():
                if _below(key, prefix):
                    raise UserError(f"{where}.{key}", value, remedy)
            if _first(key, FOR_THE_RUN) or (_below(key, "trainer") and not _first(key, OF_A_POLICY)):
                raise UserError(f"{where}.{key}", value, f"the pair decides this; set {key} for the run")


def _first(key: str, prefixes: Sequence[str]) -> bool:
    return any(_below(key, prefix) for prefix in prefixes)


def _below(key: str, prefix: str) -> bool:
    return key == prefix or key.startswith(f"{prefix}.")


def _shown(config: DictConfig, key: str) -> Any:
    return OmegaConf.select(config, key)


def _leaves(node: DictConfig) -> dict[str, Any]:
    """Key -> value of every leaf, references unresolved."""
    return dict(_walk(OmegaConf.to_container(node, resolve=False), ""))


def _walk(node: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in node.items():
        if isinstance(value, dict):
            yield from _walk(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
