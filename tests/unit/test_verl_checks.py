"""What verl would refuse minutes into a run is refused before it."""

import pytest
from longshort_reward.errors import UserError
from omegaconf import DictConfig

from verl_longshort.config.compose import compose_config
from verl_longshort.config.pair import settings_of
from verl_longshort.verl_plugin.checks.policy_config import build_policy_configs
from verl_longshort.verl_plugin.checks.verl_checks import check_ppo

pytestmark = pytest.mark.integration
LONG = "longshort.policies.long.actor_rollout_ref"


def check(*overrides, role="long", learns=True):
    given = [
        f"{LONG}.model.path=/nowhere",
        "longshort.policies.short.actor_rollout_ref.model.path=/nowhere",
        "data.train_files=/nowhere",
        "data.val_files=/nowhere",
        "trainer.n_gpus_per_node=8",
        *overrides,
    ]
    config = compose_config("longshort_trainer", given, unused=("reward.reward_model",))
    policies = build_policy_configs(config, settings_of(config).schedule)
    check_ppo(DictConfig(policies[role]), f"longshort.policies.{role}.", learns=learns)


def refused(*overrides, **more):
    with pytest.raises(UserError) as error:
        check(*overrides, **more)
    return str(error.value)


def test_the_defaults_pass_for_both_policies():
    check()
    check(role="short")


def test_a_critic_passes_though_its_model_does_not_exist():
    check("algorithm.adv_estimator=gae")


def test_a_cpu_run_passes():
    check("device=cpu", "trainer.n_gpus_per_node=1")


def test_a_policy_that_only_serves_has_gpus_of_its_own():
    served = "+longshort.policies.short.actor_rollout_ref.rollout"
    own = (f"{served}.nnodes=1", f"{served}.n_gpus_per_node=2", "longshort.schedule=[long]")
    check(*own, role="short", learns=False)
    tensor_parallel = f"{served}.tensor_model_parallel_size=4"
    line = refused(*own, tensor_parallel, role="short", learns=False)
    assert "tensor_model_parallel_size = 4: engines of 4 GPUs do not fill the 2" in line


def test_a_value_that_verl_does_not_know():
    line = refused("actor_rollout_ref.actor.loss_agg_mode=mean")
    assert line == "longshort.policies.long.actor_rollout_ref.actor = refused by verl: " + (
        "Invalid loss_agg_mode: mean"
    )


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("actor_rollout_ref.actor.policy_loss.loss_mode=vanila", "loss_mode = vanila: Unsupported loss mode"),
        ("actor_rollout_ref.actor.kl_loss_type=kl3", "kl_loss_type = kl3: verl has no such divergence"),
        ("actor_rollout_ref.actor.optim.optimizer=AdamX", "optim.optimizer = torch.optim.AdamX: "),
        ("actor_rollout_ref.actor.optim.optimizer_impl=nowhere", "install its package, or take AdamW"),
    ],
)
def test_names_that_verl_looks_up_when_it_trains(override, words):
    assert words in refused(override)


def test_a_key_of_the_wrong_type():
    assert "rollout" in refused("actor_rollout_ref.rollout.mode=sync")
    assert "actor_rollout_ref.model" in refused("actor_rollout_ref.model.lora_rank=many")


def test_a_micro_batch_too_small_for_one_trajectory():
    line = refused("actor_rollout_ref.rollout.log_prob_max_token_len_per_gpu=2048")
    assert "log_prob_max_token_len_per_gpu = 2048: must hold the longest trajectory: 5120 tokens" in line
    check("actor_rollout_ref.actor.ppo_max_token_len_per_gpu=5120")


def test_an_engine_too_short_for_one_trajectory():
    line = refused("actor_rollout_ref.rollout.max_model_len=4096")
    assert "rollout.max_model_len = 4096: trajectories may have 5120 tokens" in line


def test_gpus_that_cannot_share_a_batch():
    assert "ppo_mini_batch_size = 3: times rollout.n = 9" in refused(
        "actor_rollout_ref.actor.ppo_mini_batch_size=3", "actor_rollout_ref.rollout.n=3"
    )
    line = refused("actor_rollout_ref.actor.fsdp_config.ulysses_sequence_parallel_size=3")
    assert "ulysses_sequence_parallel_size = 3: must divide the policy's 8 GPUs" in line


CORRECTION = "algorithm.rollout_correction"


def test_rollout_correction_passes():
    check(f"{CORRECTION}.rollout_is=token")
    check(
        f"{CORRECTION}.rollout_is=sequence",
        f"{CORRECTION}.rollout_rs=token_k1",
        f"{CORRECTION}.rollout_rs_threshold='2'",
    )
    check(f"{CORRECTION}.bypass_mode=true")
    check("actor_rollout_ref.rollout.calculate_log_probs=false")


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        ((f"{CORRECTION}.loss_type=reinforce",), f"{CORRECTION}.loss_type = reinforce: verl's V1 trainer does not"),
        (
            (f"{CORRECTION}.bypass_mode=true", f"{CORRECTION}.rollout_is=token"),
            f"{CORRECTION}.rollout_is = token: is not read with bypass_mode=true",
        ),
        (
            (f"{CORRECTION}.bypass_mode=true", f"{CORRECTION}.rollout_rs=token_k1"),
            f"{CORRECTION}.rollout_rs = token_k1: is not read with bypass_mode=true",
        ),
        *(
            (
                (f"{CORRECTION}.{setting}", "actor_rollout_ref.rollout.calculate_log_probs=false"),
                "actor_rollout_ref.rollout.calculate_log_probs = False: longshort.policies.long.algorithm.rollout_corr",
            )
            for setting in ("rollout_is=token", "bypass_mode=true")
        ),
    ],
)
def test_rollout_correction_that_would_not_be_read(overrides, line):
    assert f"longshort.policies.long.{line}" in refused(*overrides)
