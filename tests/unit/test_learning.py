"""What a policy's settings say about how it learns: warm-up of the critic, learning rate of each update."""

from types import SimpleNamespace

import pytest
import torch
from longshort_reward import RoleReward
from longshort_reward.errors import UserError
from longshort_reward.protocol import Role
from omegaconf import OmegaConf

from verl_longshort.config.compose import compose_config
from verl_longshort.config.pair import settings_of
from verl_longshort.verl_plugin.checks.learning_checks import check_estimator, check_warmup
from verl_longshort.verl_plugin.checks.policy_config import build_policy_configs
from verl_longshort.verl_plugin.trainer.learning import (
    compares_group,
    set_horizon,
    spread,
)

pytestmark = pytest.mark.integration
UNUSED = ("reward.reward_model",)
MODELS = [f"longshort.policies.{role}.actor_rollout_ref.model.path=/nowhere" for role in ("long", "short")]
UPDATES = 10


def composed(*overrides):
    given = [*MODELS, "data.train_files=/nowhere", "data.val_files=/nowhere", *overrides]
    return compose_config("longshort_trainer", given, unused=UNUSED)


def rates(*overrides):
    """The learning rate of each update, by verl's own scheduler."""
    from verl.utils.torch_functional import get_constant_schedule_with_warmup, get_cosine_schedule_with_warmup

    optim = composed("actor_rollout_ref.actor.optim.lr=1.0", *overrides).actor_rollout_ref.actor.optim
    set_horizon(optim, UPDATES)
    warmup = optim.lr_warmup_steps
    if warmup <= 0:
        warmup = int(optim.lr_warmup_steps_ratio * optim.total_training_steps)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    if optim.lr_scheduler_type == "constant":
        schedule = get_constant_schedule_with_warmup(optimizer, warmup)
    else:
        schedule = get_cosine_schedule_with_warmup(
            optimizer,
            warmup,
            optim.total_training_steps,
            min_lr_ratio=optim.min_lr_ratio,
            num_cycles=optim.num_cycles,
            zero_indexed_step=optim.zero_indexed_step,
        )
    used = []
    for _ in range(UPDATES):
        used.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return used


OPTIM = "actor_rollout_ref.actor.optim"


@pytest.mark.parametrize("kind", ["cosine", "constant"])
def test_no_update_of_a_warm_up_has_the_rate_0(kind):
    used = rates(f"{OPTIM}.lr_scheduler_type={kind}", f"{OPTIM}.lr_warmup_steps_ratio=0.4")
    assert used[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert min(used) > 0
    assert used[4:] == sorted(used[4:], reverse=True)
    if kind == "constant":
        assert used[4:] == [1.0] * 6


def test_a_warm_up_in_steps():
    assert rates(f"{OPTIM}.lr_scheduler_type=cosine", f"{OPTIM}.lr_warmup_steps=2")[:2] == pytest.approx([0.5, 1.0])


def test_without_a_warm_up_neither_end_is_0():
    assert rates() == [1.0] * UPDATES
    used = rates(f"{OPTIM}.lr_scheduler_type=cosine")
    assert 0.9 < used[0] < 1.0
    assert 0 < used[-1] < 0.1


def test_verls_own_counting_on_request():
    asked = (f"{OPTIM}.zero_indexed_step=true", f"{OPTIM}.lr_warmup_steps_ratio=0.4")
    assert rates(f"{OPTIM}.lr_scheduler_type=cosine", *asked)[:4] == pytest.approx([0.0, 0.25, 0.5, 0.75])


def test_the_critics_schedule_counts_alike():
    assert composed().critic.optim.zero_indexed_step is False


@pytest.mark.parametrize(
    ("estimator", "n", "compares"),
    [("grpo", 8, True), ("rloo", 8, True), ("gae", 8, False), ("reinforce_plus_plus", 8, False), ("grpo", 1, False)],
)
def test_which_advantages_compare(estimator, n, compares):
    config = composed(f"algorithm.adv_estimator={estimator}", f"actor_rollout_ref.rollout.n={n}")
    assert compares_group(config) is compares


@pytest.mark.parametrize(
    ("overrides", "word"),
    [
        (["trainer.critic_warmup=3"], "grpo has no critic"),
        (["trainer.critic_warmup=11", "algorithm.adv_estimator=gae"], "learns in 10 steps"),
    ],
)
def test_a_warm_up_of_the_critic_that_only_loses_updates(overrides, word):
    with pytest.raises(UserError, match=word) as error:
        check_warmup(composed(*overrides), "longshort.policies.short.", updates=UPDATES)
    assert str(error.value).startswith("longshort.policies.short.trainer.critic_warmup = ")


def test_a_warm_up_that_can_be():
    check_warmup(composed("trainer.critic_warmup=3", "algorithm.adv_estimator=gae"), "", updates=UPDATES)
    check_warmup(composed(), "", updates=UPDATES)


def test_set_horizon_leaves_other_keys_alone():
    optim = OmegaConf.create({"lr": 1.0, "zero_indexed_step": True, "lr_scheduler_type": "cosine"})
    set_horizon(optim, 7)
    assert optim == {"lr": 1.0, "zero_indexed_step": True, "lr_scheduler_type": "cosine", "total_training_steps": 7}


def test_verl_counts_a_policys_own_updates_while_it_learns():
    # first: importing verl's trainers makes the plug-in register its own
    import verl.trainer.ppo.v1  # noqa: F401

    from verl_longshort.verl_plugin.trainer.gdpo import Credit
    from verl_longshort.verl_plugin.trainer.policy_trainer import PolicyTrainer
    from verl_longshort.verl_plugin.trainer.replay import PresetBatch

    policy = object.__new__(PolicyTrainer)
    policy.replay_buffer = PresetBatch()
    seen = []
    policy.step = lambda metrics, timing: seen.append(policy.global_steps)  # type: ignore[method-assign]
    policy.learn("rows", 60, update=1, credit=Credit(rewards={}, weights={}))
    # folders of checkpoints go by the run's step
    assert (seen, policy.global_steps) == ([1], 60)


@pytest.mark.parametrize(
    ("overrides", "key", "word"),
    [
        (["algorithm.adv_estimator=remax"], "adv_estimator", "greedy answer"),
        (["algorithm.adv_estimator=opo"], "adv_estimator", "not a number"),
        (["algorithm.adv_estimator=grop"], "adv_estimator", "no such estimator"),
        (
            ["algorithm.adv_estimator=grpo_vectorized", "algorithm.norm_adv_by_std_in_grpo=false"],
            "norm_adv_by_std_in_grpo",
            "use grpo",
        ),
        (["algorithm.adv_estimator=gdpo", "+algorithm.gdpo_reward_keys=[acc]"], "gdpo_reward_keys", "longshort.reward"),
        (["algorithm.adv_estimator=gdpo", "algorithm.use_kl_in_reward=true"], "use_kl_in_reward", "use_kl_loss"),
    ],
)
def test_an_estimator_that_cannot_work(overrides, key, word):
    with pytest.raises(UserError, match=word) as error:
        check_estimator(composed(*overrides), "longshort.policies.long.")
    assert str(error.value).startswith(f"longshort.policies.long.algorithm.{key} = ")


@pytest.mark.parametrize("name", ["grpo", "gdpo", "rloo", "reinforce_plus_plus", "reinforce_plus_plus_baseline", "gae"])
def test_an_estimator_that_works(name):
    check_estimator(composed(f"algorithm.adv_estimator={name}"), "")


def test_each_policy_has_its_own_way_to_learn():
    own = "longshort.policies.long"
    config = composed(
        f"{own}.algorithm.adv_estimator=gdpo",
        f"{own}.actor_rollout_ref.actor.clip_ratio_high=0.28",
        "algorithm.norm_adv_by_std_in_grpo=false",
    )
    built = build_policy_configs(config, settings_of(config).schedule)
    assert [built[role]["algorithm"]["adv_estimator"] for role in ("long", "short")] == ["gdpo", "grpo"]
    assert [built[role]["actor_rollout_ref"]["actor"]["clip_ratio_high"] for role in ("long", "short")] == [0.28, 0.2]
    assert not any(built[role]["algorithm"]["norm_adv_by_std_in_grpo"] for role in ("long", "short"))


def test_clip_higher_lets_a_policy_go_further():
    """verl's loss; a token that became 1.25 times as likely still has a gradient."""
    from verl.trainer.ppo.core_algos import compute_policy_loss_vanilla
    from verl.workers.config import FSDPActorConfig

    for high, moves in ((0.2, False), (0.28, True)):
        config = FSDPActorConfig(
            clip_ratio_low=0.2,
            clip_ratio_high=high,
            strategy="fsdp2",
            ppo_micro_batch_size_per_gpu=1,
            rollout_n=1,
            global_batch_info={"dp_size": 1, "batch_num_tokens": 1, "global_batch_size": 1, "loss_scale_factor": None},
        )
        logprob = torch.tensor([[1.25]]).log().requires_grad_()
        ones = torch.ones(1, 1)
        loss, _ = compute_policy_loss_vanilla(torch.zeros(1, 1), logprob, ones, ones, "token-mean", config)
        loss.backward()
        assert bool(logprob.grad.abs() > 0) is moves


@pytest.mark.parametrize(("ranks", "updates", "real"), [(1, 4, 17), (1, 1, 3), (2, 2, 9), (2, 4, 30), (1, 4, 2)])
def test_every_update_of_a_step_has_its_share_of_real_rows(ranks, updates, real):
    rows = 32
    # as verl balances: every rank has real rows, and synthetic ones behind them
    part = rows // ranks
    synthetic = [row % part >= (real + ranks - 1 - row // part) // ranks for row in range(rows)]
    assert synthetic.count(False) == real
    order = spread(synthetic, ranks=ranks, updates=updates)
    assert sorted(order) == list(range(rows))
    for rank in range(ranks):
        own = order[rank * part : (rank + 1) * part]
        assert sorted(own) == list(range(rank * part, (rank + 1) * part))
        size = part // updates
        counts = [sum(not synthetic[row] for row in own[k * size : (k + 1) * size]) for k in range(updates)]
        assert max(counts) - min(counts) <= 1


@pytest.fixture
def learn(monkeypatch):
    """`PairTrainer._learn` of the short role, with a policy that notes the rows it gets and adds a synthetic one."""
    import verl.trainer.ppo.v1  # noqa: F401
    from transfer_queue import KVBatchMeta

    from verl_longshort.verl_plugin.trainer import pair_trainer
    from verl_longshort.verl_plugin.trainer.policy_trainer import PolicyTrainer

    def go(neutral):
        """Keys handed to the policy (None: it was not asked), keys of all rows returned, metrics, update's number."""
        seen = []
        policy = object.__new__(PolicyTrainer)
        policy.name, policy.roles, policy.config = "short", (Role.SHORT,), composed()

        def note(rows, step, *, update, credit):
            seen.append((rows.keys, step, update))
            padded = KVBatchMeta(partition_id="train", keys=[*rows.keys, "pad_0_0"], tags=[*rows.tags, {}])
            return padded, {"actor/lr": 1.0}, {}

        policy.learn = note  # type: ignore[method-assign]
        trainer = object.__new__(pair_trainer.PairTrainer)
        trainer.checkpoints = SimpleNamespace(written={Role.SHORT: 3})
        trainer.settings = settings_of(composed("longshort.schedule=[long,short]", "longshort.steps_per_round=2"))
        trainer.schedule, trainer.global_steps = trainer.settings.schedule, 4
        trainer._learned = {}
        trainer.activity = SimpleNamespace(now=lambda *_: None)
        keys = [f"u_{number}_1" for number in range(len(neutral))]
        rewards = {key: RoleReward(total=1.0, terms={}, neutral=out) for key, out in zip(keys, neutral, strict=True)}
        monkeypatch.setattr(pair_trainer, "own_tokens", lambda rows: dict.fromkeys(rows.keys, 3))
        metrics = {}
        rows = KVBatchMeta(partition_id="train", keys=keys, tags=[{} for _ in keys])
        returned = trainer._learn(policy, [rows], rewards, metrics)
        return (seen[0] if seen else None), returned.keys, metrics

    return go


def test_a_policy_gets_the_rows_that_teach_and_all_are_returned(learn):
    asked, returned, metrics = learn([False, True, False, True])
    # step 4 is the second of the short role
    assert asked == (["u_0_1", "u_2_1"], 4, 2)
    assert sorted(returned) == ["pad_0_0", "u_0_1", "u_1_1", "u_2_1", "u_3_1"]
    assert metrics == {
        "short/rows/learned": 2.0,
        "short/rows/neutral": 2.0,
        "short/rows/alone": 0.0,
        "short/own_tokens": 6,
        "short/updated": 1.0,
        "short/actor/lr": 1.0,
    }


@pytest.mark.parametrize(("neutral", "alone"), [([True] * 3, 0.0), ([True, False, True], 1.0)])
def test_a_policy_that_nothing_teaches_is_not_asked(learn, neutral, alone):
    asked, returned, metrics = learn(neutral)
    assert asked is None
    assert returned == ["u_0_1", "u_1_1", "u_2_1"]
    assert metrics["short/updated"] == metrics["short/rows/learned"] == metrics["short/own_tokens"] == 0
    assert metrics["short/rows/alone"] == alone
