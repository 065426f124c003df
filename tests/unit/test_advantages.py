"""What a policy gets to learn from: verl's own advantages of the rows that are handed over."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from longshort_reward import Ramp, RewardWeights
from longshort_reward.protocol import Role
from omegaconf import OmegaConf

from verl_longshort.verl_plugin.trainer.group_reward import ReplayKey, TeachingRows, reward_rows, teaching_rows

pytestmark = pytest.mark.integration
WEIGHTS = RewardWeights(mu=Ramp(start=0.0, end=0.2, begin_step=0, end_step=10), rethink=0.1)
TOKENS = 3


def facts(**changes):
    base = {"acc": 1.0, "tokens": 100.0, "turns": 2.0, "rethinks": 0.0, "stop_reason": "answered", "fault_role": ""}
    return {**base, **{f"{kind}_{role}": 1.0 for kind in ("format", "turns", "tokens") for role in Role}, **changes}


SHORT_BROKE = {"acc": 0.0, "stop_reason": "malformed", "fault_role": "short", "format_short": 0.0}


def rewards_of(sessions, *, role=Role.LONG, group="u", step=0):
    index = list(Role).index(role)
    keys = [f"{group}_{number}_{index}" for number in range(len(sessions))]
    return reward_rows(keys, sessions, WEIGHTS, step)


def teaching(rewards, *, compares=True, own_tokens=TOKENS) -> TeachingRows:
    return teaching_rows(rewards, dict.fromkeys(rewards, own_tokens), compares=compares)


def data_of(keys, rewards):
    """The rows as verl's trainer hands them to its estimators; all tokens are the role's own."""
    from verl.protocol import DataProto

    scores = torch.zeros(len(keys), TOKENS)
    scores[:, -1] = torch.tensor([rewards[key].total for key in keys])
    tensors = {
        "token_level_rewards": scores,
        "response_mask": torch.ones(len(keys), TOKENS),
        "values": torch.zeros(len(keys), TOKENS),
        "old_log_probs": torch.zeros(len(keys), TOKENS),
    }
    uids = np.array([ReplayKey.of(key).group for key in keys], dtype=object)
    return DataProto.from_dict(tensors, non_tensors={"uid": uids})


def advantages(keys, rewards, estimator="grpo", **options):
    from verl.trainer.ppo.v1.utils import compute_advantage_for_multi_trajectories

    data = compute_advantage_for_multi_trajectories(
        data_of(keys, rewards),
        batch_keys=list(keys),
        adv_estimator=estimator,
        config=OmegaConf.create({"gamma": 1.0, **options}),
        **options,
    )
    return data.batch["advantages"]


def test_neutral_rows_do_not_narrow_the_deviation_of_their_group():
    rewards = rewards_of([facts(), facts(acc=0.0), *[facts(**SHORT_BROKE)] * 6])
    taught = teaching(rewards)
    assert (taught.keys, taught.neutral, taught.alone) == (("u_0_0", "u_1_0"), 6, 0)
    assert advantages(taught.keys, rewards)[:, 0].tolist() == pytest.approx([0.7071, -0.7071], abs=1e-3)
    # the same two rows, handed over with the neutral ones
    assert advantages(list(rewards), rewards)[:2, 0].tolist() == pytest.approx([1.8708, -1.8708], abs=1e-3)


def test_neutral_rows_do_not_move_what_gae_whitens():
    easy = rewards_of([facts(), facts()], group="easy")
    rewards = {**rewards_of([facts(), facts(acc=0.0), *[facts(**SHORT_BROKE)] * 6]), **easy}
    taught = teaching(rewards, compares=False)
    assert (len(taught.keys), taught.neutral) == (4, 6)
    # under GAE a row with the mean reward of its group has an advantage
    assert advantages(list(rewards), rewards, "gae", lam=1.0)[2:8].abs().min() > 0.1
    learned = advantages(taught.keys, rewards, "gae", lam=1.0)
    assert torch.equal(learned, advantages(taught.keys, {key: rewards[key] for key in taught.keys}, "gae", lam=1.0))
    assert learned[1, 0] < 0 < learned[0, 0]


def test_when_all_are_neutral_nothing_is_learned():
    rewards = rewards_of([facts(**SHORT_BROKE)] * 4)
    assert teaching(rewards).keys == ()
    assert teaching(rewards).metrics(Role.LONG) == {
        "long/rows/learned": 0.0,
        "long/rows/neutral": 4.0,
        "long/rows/alone": 0.0,
    }


def test_a_row_that_is_alone_teaches_only_where_nothing_is_compared():
    rewards = rewards_of([facts(), *[facts(**SHORT_BROKE)] * 3])
    # verl would give it its whole reward
    assert advantages(["u_0_0"], rewards)[0, 0].item() == pytest.approx(1.1, abs=1e-3)
    taught = teaching(rewards)
    assert (taught.keys, taught.neutral, taught.alone) == ((), 3, 1)
    assert teaching(rewards, compares=False).keys == ("u_0_0",)


def test_groups_are_told_apart():
    rewards = {
        **rewards_of([facts(), facts(**SHORT_BROKE)], group="a"),
        **rewards_of([facts(), facts(acc=0.0)], group="b"),
    }
    assert teaching(rewards).keys == ("b_0_0", "b_1_0")


def test_a_row_without_a_token_of_its_own_teaches_nothing():
    rewards = rewards_of([facts(), facts(acc=0.0)])
    taught = teaching_rows(rewards, {"u_0_0": TOKENS, "u_1_0": 0}, compares=False)
    assert (taught.keys, taught.neutral) == (("u_0_0",), 1)


def test_the_other_role_learns_from_what_it_broke():
    rewards = rewards_of([facts(), facts(**SHORT_BROKE)], role=Role.SHORT)
    assert teaching(rewards).keys == ("u_0_1", "u_1_1")


@pytest.mark.parametrize("size", range(2, 17))
@pytest.mark.parametrize("reward", [1.1, 1.2, 0.1, 1.0999, 0.05])
def test_equal_rewards_have_no_advantage(size, reward):
    pytest.importorskip("transfer_queue")
    from verl_longshort.verl_plugin.trainer.rows import on_grid

    scores = torch.full((size,), on_grid(reward))
    assert abs(on_grid(reward) - reward) < 4e-6
    # without the grid, rounding errors make it up to 0.1
    assert ((scores - scores.mean()) / (scores.std() + 1e-6)).abs().max() == 0


def test_rewards_are_written_on_the_grid(monkeypatch):
    import verl_longshort.verl_plugin.trainer.rows as rows

    rewards = rewards_of([facts(tokens=100.0), facts(tokens=130.0), facts(tokens=170.0)], step=3)
    batch = rows.KVBatchMeta(partition_id="train", keys=list(rewards), tags=[{} for _ in rewards])
    written = {}
    queue = SimpleNamespace(
        kv_batch_get=lambda keys, partition_id, select_fields: {"response_mask": [torch.ones(TOKENS) for _ in keys]},
        kv_batch_put=lambda keys, partition_id, fields: written.update(zip(keys, fields["rm_scores"], strict=True)),
    )
    monkeypatch.setattr(rows, "tq", queue)
    rows.write_rewards(batch, rewards)
    for key, reward in rewards.items():
        assert (written[key].sum().item() * 2**17).is_integer()
        assert written[key].sum().item() == pytest.approx(reward.total, abs=4e-6)


GROUPS = [
    # all correct: only length varies; one of two correct; format varies
    ("easy", [facts(tokens=100.0), facts(tokens=200.0), facts(tokens=150.0), facts(tokens=120.0)]),
    ("mixed", [facts(), facts(), facts(acc=0.0), facts(acc=0.0)]),
    ("form", [facts(), facts(), facts(), facts(format_long=0.0)]),
]


def batch_of(step):
    rewards = {}
    for group, sessions in GROUPS:
        rewards.update(rewards_of(sessions, group=group, step=step))
    return rewards


def gdpo(step, *, norm=True):
    """Advantages of the first token of each row, by key, with mu as it is in `step`."""
    import verl.trainer.ppo.v1  # noqa: F401

    from verl_longshort.verl_plugin.trainer.gdpo import Credit, _terms

    rewards = batch_of(step)
    credit = Credit.of(rewards, WEIGHTS, step)
    token = _terms.set(([rewards[key].terms for key in rewards], credit.weights))
    try:
        made = advantages(list(rewards), rewards, "longshort_gdpo", norm_adv_by_std_in_grpo=norm)
    finally:
        _terms.reset(token)
    return dict(zip(rewards, made[:, 0].tolist(), strict=True))


def test_gdpo_sees_each_rows_terms_wherever_verl_put_the_row(monkeypatch):
    from verl.trainer.ppo.v1 import PPOTrainerSync

    from verl_longshort.verl_plugin.trainer.gdpo import Credit, TermTrainer, _terms

    rewards = batch_of(10)
    seen = []
    monkeypatch.setattr(PPOTrainerSync, "__init__", lambda self, config: setattr(self, "config", config))
    monkeypatch.setattr(PPOTrainerSync, "_compute_advantage", lambda self, batch, metrics: seen.append(_terms.get()))
    monkeypatch.setattr(TermTrainer, "__abstractmethods__", frozenset())
    monkeypatch.setattr(TermTrainer, "credit", lambda self: Credit.of(rewards, WEIGHTS, 10))
    trainer = TermTrainer(OmegaConf.create({"algorithm": {"adv_estimator": "gdpo"}}))
    assert trainer.config.algorithm.adv_estimator == "longshort_gdpo"
    order = ["mixed_2_0", "pad_0_0", "easy_1_0"]
    trainer._compute_advantage(SimpleNamespace(keys=order), {})
    [(rows, weights)] = seen
    assert [dict(row) for row in rows] == [dict(rewards["mixed_2_0"].terms), {}, dict(rewards["easy_1_0"].terms)]
    assert weights == {"em": 1.0, "fm": 0.1, "lm": 0.2, "rethink": 0.1}
    assert _terms.get(None) is None


def test_gdpo_keeps_the_size_of_mu():
    """In a group that is all correct only mu * LM varies; a division by its deviation cancels mu."""
    early, late = gdpo(1), gdpo(10)
    assert early["easy_0_0"] > 0 > early["easy_1_0"]
    # mu is 0.02 in step 1 and 0.2 in step 10
    assert late["easy_0_0"] / late["mixed_0_0"] == pytest.approx(10 * early["easy_0_0"] / early["mixed_0_0"], rel=1e-3)
    grpo = [advantages(list(batch_of(step)), batch_of(step))[0, 0].item() for step in (1, 10)]
    assert grpo[0] == pytest.approx(grpo[1], rel=1e-3)


def test_gdpo_weighs_a_term_by_its_weight_and_not_by_its_spread():
    made = gdpo(0)
    # lambda = 0.1 of FM against eta = 1 of EM: in both groups one term varies
    assert -made["form_3_0"] / made["mixed_0_0"] == pytest.approx(0.1 * 1.5 / 0.8660, rel=0.02)


def test_gdpo_without_division_by_the_deviation():
    made = gdpo(10, norm=False)
    assert made["easy_0_0"] / made["mixed_0_0"] == pytest.approx(0.2 * (0.5 - 0.075) / 0.5, rel=0.01)


@pytest.mark.parametrize(("norm", "ratio"), [(True, 1.0), (False, 10.0)])
def test_without_the_deviation_grpo_keeps_the_size_of_mu(norm, ratio):
    spread = [
        advantages(list(batch_of(step)), batch_of(step), norm_adv_by_std_in_grpo=norm)[0, 0].item() for step in (1, 10)
    ]
    assert spread[1] / spread[0] == pytest.approx(ratio, rel=0.01)


def padded(rewards, synthetic):
    """The rows with verl's synthetic ones: a group of their own, no token of the role's, no reward."""
    from verl.protocol import DataProto

    data = data_of(list(rewards), rewards)
    more = {name: torch.zeros(synthetic, TOKENS) for name in data.batch.keys()}  # noqa: SIM118
    uids = np.array([*data.non_tensor_batch["uid"], *["pad"] * synthetic], dtype=object)
    tensors = {name: torch.cat([data.batch[name], more[name]]) for name in more}
    return DataProto.from_dict(tensors, non_tensors={"uid": uids})


def estimated(name, synthetic):
    from verl.trainer.ppo.v1.utils import compute_advantage_for_multi_trajectories

    rewards = batch_of(10)
    keys = [*rewards, *(f"pad_{number}_0" for number in range(synthetic))]
    config = OmegaConf.create({"gamma": 1.0, "norm_adv_by_std_in_grpo": True})
    data = compute_advantage_for_multi_trajectories(
        padded(rewards, synthetic), batch_keys=keys, adv_estimator=name, config=config
    )
    return data.batch["advantages"]


USABLE = ["grpo", "grpo_vectorized", "rloo", "rloo_vectorized", "reinforce_plus_plus", "reinforce_plus_plus_baseline"]


@pytest.mark.parametrize("name", [*USABLE, "gae"])
def test_estimators_that_work_whatever_fills_the_batch(name):
    alone = estimated(name, 0)
    assert alone.dtype == torch.float32
    assert alone.abs().max() > 0
    for synthetic in (1, 4):
        made = estimated(name, synthetic)
        assert torch.equal(made[: len(alone)], alone)
        assert name == "gae" or not made[len(alone) :].any()


def test_estimators_that_are_refused_cannot_work():
    """When one of these fails, verl has changed, and the refusal can go."""
    for name in ("remax", "optimal_token_baseline", "tir_optimal_token_baseline"):
        with pytest.raises((TypeError, AssertionError)):
            estimated(name, 0)
    with pytest.raises(ValueError, match="at least 2 samples"):
        estimated("grpo_passk", 1)
    assert estimated("opo", 4).isnan().any()
    assert not torch.equal(estimated("gpg", 4)[:12], estimated("gpg", 0))
    with pytest.raises(AssertionError, match="gdpo_reward_keys"):
        estimated("gdpo", 0)
