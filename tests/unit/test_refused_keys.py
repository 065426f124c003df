"""What a run would accept and ignore, or what would break it a minute later, is refused by name."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from longshort_reward.errors import UserError
from omegaconf import DictConfig, OmegaConf, open_dict

from verl_longshort.config.compose import compose_config, default_config
from verl_longshort.config.pair import plain_dict
from verl_longshort.verl_plugin.checks import policy_checks
from verl_longshort.verl_plugin.checks.keys import (
    EVERY_RUN,
    FOR_THE_RUN,
    PAIR,
    PAIR_LOOP,
    SINGLE,
    SINGLE_LOOP,
    check_keys,
)
from verl_longshort.verl_plugin.checks.notes import notes_of
from verl_longshort.verl_plugin.checks.policy_checks import check_policy
from verl_longshort.verl_plugin.launch import PAIR_CONFIG, SINGLE_CONFIG, UNUSED

POLICY = "longshort.policies.long"
GIVEN = {
    PAIR_LOOP: (
        "device=cpu",
        f"{POLICY}.actor_rollout_ref.model.path=/l",
        "longshort.policies.short.actor_rollout_ref.model.path=/s",
    ),
    SINGLE_LOOP: ("device=cpu", "longshort.model=/m"),
}
NAMES = {PAIR_LOOP: PAIR_CONFIG, SINGLE_LOOP: SINGLE_CONFIG}
DEFAULTS = {loop: default_config(name, GIVEN[loop]) for loop, name in NAMES.items()}
CONFIGS = {loop: compose_config(name, GIVEN[loop], unused=UNUSED) for loop, name in NAMES.items()}


@contextmanager
def changed(loop: str, *overrides: str) -> Iterator[DictConfig]:
    """The defaults with `key=value`, as long as the body runs: composing takes half a second each time."""
    config = CONFIGS[loop]
    undo = []
    with open_dict(config):
        for override in overrides:
            key, _, value = override.lstrip("+").partition("=")
            parent, _, leaf = key.rpartition(".")
            node = _block(config, parent)
            undo.append((node, leaf, leaf in set(node), OmegaConf.to_container(node).get(leaf)))
            node[leaf] = yaml.safe_load(value)
        try:
            yield config
        finally:
            for node, leaf, known, before in reversed(undo):
                if known:
                    node[leaf] = before
                else:
                    del node[leaf]


def _block(config: DictConfig, key: str) -> Any:
    node: Any = config
    for name in key.split(".") if key else ():
        if name not in set(node):
            node[name] = {}
        node = node[name]
    return node


def check_run(loop: str, *overrides: str) -> None:
    with changed(loop, *overrides) as config:
        check_keys(config, DEFAULTS[loop], agent_loop=loop)


def refused(loop: str, *overrides: str) -> str:
    with pytest.raises(UserError) as error:
        check_run(loop, *overrides)
    return str(error.value)


@pytest.mark.parametrize("loop", NAMES)
def test_nothing_is_refused_that_the_user_did_not_change(loop: str) -> None:
    check_run(loop)


@pytest.mark.parametrize("loop", NAMES)
def test_what_works_is_not_refused(loop: str) -> None:
    works = (
        "actor_rollout_ref.actor.ppo_epochs=2",
        "actor_rollout_ref.actor.shuffle=true",
        "actor_rollout_ref.rollout.n=4",
        "actor_rollout_ref.rollout.val_kwargs.n=4",
        "actor_rollout_ref.rollout.val_kwargs.temperature=0.6",
        "actor_rollout_ref.rollout.val_kwargs.do_sample=true",
        "actor_rollout_ref.rollout.agent.num_workers=2",
        "+actor_rollout_ref.rollout.agent.agent_loop_manager_class=my.Manager",
        "algorithm.use_kl_in_reward=true",
        "algorithm.norm_adv_by_std_in_grpo=false",
        "data.shuffle=false",
        "data.truncation=error",
        "data.filter_overlong_prompts=true",
        "data.gen_batch_size=4",
        "data.seed=1",
        "trainer.save_freq=3",
        "trainer.val_only=true",
        "+trainer.wandb_proxy=http://x",
        "ray_kwargs.ray_init.num_cpus=8",
        "transfer_queue.backend.SimpleStorage.num_data_storage_units=2",
    )
    check_run(loop, *works)


def other(value: Any) -> Any:
    """Another value of the same kind."""
    if isinstance(value, bool):
        return not value
    return value + 7 if isinstance(value, int | float) else "other"


CASES = [(loop, prefix) for loop in NAMES for prefix in {**EVERY_RUN, **(PAIR if loop == PAIR_LOOP else SINGLE)}]


@pytest.mark.parametrize(("loop", "prefix"), CASES)
def test_a_changed_key_of_the_table_is_refused_by_name(loop: str, prefix: str) -> None:
    table = {**EVERY_RUN, **PAIR, **SINGLE}
    node = OmegaConf.select(DEFAULTS[loop], prefix)
    is_block = isinstance(node, DictConfig)
    name = next((k for k in node if not isinstance(node._get_node(k), DictConfig)), None) if is_block else ""
    key = f"{prefix}.{name}" if name else f"{prefix}.new" if is_block else prefix
    value = other(OmegaConf.select(DEFAULTS[loop], key))
    with pytest.raises(UserError) as error:
        check_run(loop, f"{key}={yaml.safe_dump(value)}")
    assert error.value.key.startswith(prefix)
    assert error.value.remedy == table[prefix]


@pytest.mark.parametrize("prefix", sorted({*EVERY_RUN, *PAIR, *SINGLE} - {"trainer.v1.sync"}))
def test_verl_has_every_key_of_the_table(prefix: str) -> None:
    assert OmegaConf.select(DEFAULTS[PAIR_LOOP], prefix.rpartition(".")[0] or prefix) is not None
    leaf = prefix.rpartition(".")[2]
    block = OmegaConf.select(DEFAULTS[PAIR_LOOP], prefix.rpartition(".")[0]) if "." in prefix else DEFAULTS[PAIR_LOOP]
    assert leaf in block


@pytest.mark.parametrize(
    ("override", "words"),
    [
        (
            "reward.custom_reward_function.path=/x.py",
            "reward.custom_reward_function.path = /x.py: the agent loop grades",
        ),
        ("custom_reward_function.path=/x.py", "custom_reward_function.path = /x.py: the agent loop grades"),
        ("global_profiler.steps=[1]", "global_profiler.steps = [1]: a pair is not profiled"),
        ("trainer.checkpoint_callback_class=my.C", "trainer.checkpoint_callback_class = my.C: a pair saves"),
        ("algorithm.use_pf_ppo=true", "algorithm.use_pf_ppo = True: "),
        (
            "trainer.v1.trainer_mode=separate_async",
            "trainer_mode = separate_async: this command trains",
        ),
        ("trainer.v1.trainer_mode=longshort_single", "this command trains with longshort;"),
        ("actor_rollout_ref.rollout.agent.default_agent_loop=tool_agent", "the rows of longshort alone"),
        ("trainer.resume_mode=always", "trainer.resume_mode = always: must be one of auto, disable, resume_path"),
        ("+data.sampler={class_path: my.S}", "data.sampler = {'class_path': 'my.S'}: verl reads no such key"),
        ("+data.max_promt_length=3", "did you mean data.max_prompt_length?"),
        ("+trainer.esi_time=3", "trainer.esi_time = 3: verl reads no such key"),
        ("+curriculum={stages: 3}", "curriculum = {'stages': 3}: nobody reads such a key"),
    ],
)
def test_the_line(override: str, words: str) -> None:
    line = refused(PAIR_LOOP, override)
    assert words in line
    assert "\n" not in line


def test_a_data_set_of_the_users_own_leaves_out_what_is_long() -> None:
    own = ("data.custom_cls.path=/x.py", "data.custom_cls.name=Own")
    check_run(PAIR_LOOP, *own)
    assert "must leave long prompts out by itself" in refused(PAIR_LOOP, *own, "data.filter_overlong_prompts=true")


@pytest.mark.parametrize("key", sorted({*FOR_THE_RUN, "trainer.save_freq", "trainer.logger"}))
def test_a_policy_cannot_have_the_runs_keys_for_itself(key: str) -> None:
    node = OmegaConf.select(DEFAULTS[PAIR_LOOP], key)
    leaf = f"{key}.{next(iter(node))}" if isinstance(node, DictConfig) else key
    line = refused(PAIR_LOOP, f"{POLICY}.{leaf}=7")
    assert line.startswith(f"{POLICY}.{leaf} = 7: ")


@pytest.mark.parametrize(
    "override",
    [
        "actor_rollout_ref.actor.optim.lr=1e-4",
        "actor_rollout_ref.rollout.name=vllm",
        "actor_rollout_ref.rollout.seed=3",
        "algorithm.adv_estimator=gae",
        "critic.optim.lr=1e-4",
        "trainer.critic_warmup=2",
        "trainer.n_gpus_per_node=2",
    ],
)
def test_what_a_policy_can_have_for_itself(override: str) -> None:
    check_run(PAIR_LOOP, f"{POLICY}.{override}")


# ---------------------------------------------------------------- one policy's configuration


def check(*overrides: str) -> None:
    with changed(PAIR_LOOP, *overrides) as config:
        policy = {name: plain_dict(config[name]) for name in ("actor_rollout_ref", "critic", "algorithm", "trainer")}
        check_policy(policy, f"{POLICY}.", model_key="model", learns=True)


@pytest.mark.parametrize(
    ("overrides", "missing"),
    [
        ((), "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu"),
        (("actor.ppo_micro_batch_size_per_gpu=1",), "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu"),
        (
            ("actor.ppo_micro_batch_size_per_gpu=1", "rollout.log_prob_micro_batch_size_per_gpu=1"),
            "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu",
        ),
    ],
)
def test_micro_batches_without_a_size(overrides: tuple[str, ...], missing: str) -> None:
    given = [f"actor_rollout_ref.{one}" for one in ("actor.use_dynamic_bsz=false", *overrides)]
    with pytest.raises(UserError) as error:
        check(*given)
    assert error.value.key == f"{POLICY}.{missing}"
    sizes = ("actor.ppo_micro_batch_size_per_gpu", "rollout.log_prob_micro_batch_size_per_gpu")
    check(given[0], *(f"actor_rollout_ref.{k}=1" for k in (*sizes, "ref.log_prob_micro_batch_size_per_gpu")))


def test_a_critic_needs_a_size_too() -> None:
    sizes = ("actor.ppo_micro_batch_size_per_gpu", "rollout.log_prob_micro_batch_size_per_gpu")
    given = [f"actor_rollout_ref.{k}=1" for k in (*sizes, "ref.log_prob_micro_batch_size_per_gpu")]
    gae = ("actor_rollout_ref.actor.use_dynamic_bsz=false", "algorithm.adv_estimator=gae", *given)
    with pytest.raises(UserError, match=r"critic\.ppo_micro_batch_size_per_gpu"):
        check(*gae)
    check(*gae, "critic.ppo_micro_batch_size_per_gpu=1")


def test_adapters_with_a_server_of_whole_weights() -> None:
    given = ("actor_rollout_ref.model.lora_rank=8", "actor_rollout_ref.model.lora.merge=false")
    with pytest.raises(UserError) as error:
        check(*given)
    assert error.value.key == f"{POLICY}.actor_rollout_ref.model.lora.merge"
    check(given[0])
    check(*given, "actor_rollout_ref.rollout.name=vllm")


def test_an_adapter_to_go_on_from(tmp_path: Path) -> None:
    key = "actor_rollout_ref.model.lora_adapter_path"
    rank = "actor_rollout_ref.model.lora_rank"
    for given, message in (
        ((f"{key}={tmp_path}",), r"lora_adapter_path = .*: verl trains all weights without .*lora_rank"),
        ((f"{key}={tmp_path}", f"{rank}=8"), "has no adapter_config.json"),
    ):
        with pytest.raises(UserError, match=message):
            check(*given)
    (tmp_path / "adapter_config.json").write_text('{"r": 4}')
    with pytest.raises(UserError, match=r"lora_rank = 8: the adapter in .* has 4"):
        check(f"{key}={tmp_path}", f"{rank}=8")
    check(f"{key}={tmp_path}", f"{rank}=4")


def test_another_engine_than_fsdp() -> None:
    with pytest.raises(UserError, match="strategy = megatron: checkpoints and exports are made for fsdp and fsdp2"):
        check("actor_rollout_ref.actor.strategy=megatron")


def test_flash_attention_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy_checks, "gpus_per_node", lambda: 8)
    monkeypatch.setattr(policy_checks.importlib.util, "find_spec", lambda name: None)
    check("trainer.device=cuda")
    flash = "actor_rollout_ref.model.override_config={attn_implementation: flash_attention_2}"
    with pytest.raises(UserError, match="flash_attn is not installed"):
        check("trainer.device=cuda", flash)
    check(flash)


# ---------------------------------------------------------------- what is permitted and rarely meant


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["actor_rollout_ref.rollout.n=1"], "rollout.n=1: grpo compares the trajectories"),
        (["actor_rollout_ref.rollout.temperature=0"], "temperature=0: the 8 trajectories of a problem are the same"),
        (["trainer.save_freq=-1"], "trainer.save_freq=-1: nothing is saved"),
        (["trainer.test_freq=-1"], "trainer.test_freq=-1: the models are not validated"),
        (["actor_rollout_ref.rollout.val_kwargs.n=4"], "the 4 answers to a problem are the same"),
        (["data.train_batch_size=100"], "data.train_batch_size=100 is no multiple of ppo_mini_batch_size=256"),
    ],
)
def test_it_is_said(overrides: list[str], words: str) -> None:
    assert notes_of(CONFIGS[PAIR_LOOP]) == []
    with changed(PAIR_LOOP, *overrides) as config:
        (note,) = notes_of(config)
    assert words in note


def test_one_trajectory_per_problem_is_enough_for_gae() -> None:
    with changed(PAIR_LOOP, "actor_rollout_ref.rollout.n=1", "algorithm.adv_estimator=gae") as config:
        assert notes_of(config) == []
