"""`longshort.tied`: one policy in both roles, from its settings to the rows that it learns from."""

import functools
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from longshort_reward import RoleReward
from longshort_reward.errors import UserError
from longshort_reward.protocol import ROLES, Role, RolePrompts
from omegaconf import DictConfig

from verl_longshort.base.checkpoint import CheckpointStore
from verl_longshort.base.policy_record import policy_record, prompt_warnings
from verl_longshort.config.compose import compose_config
from verl_longshort.config.pair import settings_of
from verl_longshort.core.policies import POLICIES, players, roles_of, said_roles
from verl_longshort.core.schedule import Schedule
from verl_longshort.recipe.recipe import load_recipe, recipe_folder
from verl_longshort.verl_plugin.checks.policy_config import build_policy_configs
from verl_longshort.verl_plugin.trainer.learning import spread

MODEL = "longshort.policies.{}.actor_rollout_ref.model.path"
TIED = ["longshort.tied=true", "longshort.schedule=[both,both]"]


@functools.cache
def composed(*overrides: str) -> DictConfig:
    given = [*(f"{MODEL.format(role)}=/nowhere" for role in ROLES), "data.train_files=x", "data.val_files=x"]
    return compose_config("longshort_trainer", [*given, *TIED, *overrides], unused=("reward.reward_model",))


def test_names_and_roles_of_policies() -> None:
    assert players(tied=True) == {"tied": ROLES}
    assert players(tied=False) == {"long": (Role.LONG,), "short": (Role.SHORT,)}
    assert set(POLICIES) == {*players(tied=True), *players(tied=False)}
    assert [said_roles(roles) for roles in ((Role.LONG,), (Role.SHORT,), ROLES)] == ["long", "short", "both"]
    assert [roles_of(said) for said in ("long", "short", "both")] == [(Role.LONG,), (Role.SHORT,), ROLES]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("longshort.schedule=[both,short]", "longshort.schedule = ['both', 'short']: with longshort.tied one policy"),
        ("longshort.pools=separate", "longshort.pools = separate: with longshort.tied there is one policy"),
        (
            "longshort.policies.short.actor_rollout_ref.actor.optim.lr=1e-3",
            "longshort.policies.short.actor_rollout_ref.actor.optim.lr = 0.001: longshort.policies.long.actor_rollout_"
            "ref.actor.optim.lr is None, and with longshort.tied one policy plays both roles: give both the same",
        ),
        (f"{MODEL.format('long')}=/other", f"{MODEL.format('short')} = /nowhere: {MODEL.format('long')} is /other"),
        ("longshort.tied=1", "longshort.tied = 1: must be true or false"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(override: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        settings_of(composed(override))
    assert str(error.value).startswith(message)


def test_two_policies_may_differ() -> None:
    changed = ("longshort.tied=false", "longshort.schedule=[long]", f"{MODEL.format('long')}=/other")
    assert list(settings_of(composed(*changed)).players) == ["long", "short"]


def test_one_policy_has_the_rows_of_both_roles_in_a_batch() -> None:
    config = composed("data.train_batch_size=6", "actor_rollout_ref.actor.ppo_mini_batch_size=3")
    built = build_policy_configs(config, settings_of(config).schedule, tied=True)
    assert list(built) == ["tied"]
    policy = built["tied"]
    assert policy["data"]["train_batch_size"] == 12
    assert policy["actor_rollout_ref"]["actor"]["ppo_mini_batch_size"] == 6
    assert policy["critic"]["ppo_mini_batch_size"] == 6
    assert policy["actor_rollout_ref"]["rollout"]["custom"]["role"] == "tied"
    assert policy["trainer"]["default_local_dir"].endswith("/tied")
    alone = build_policy_configs(composed("longshort.tied=false"), Schedule.parse(["both"], 1))
    assert [alone[role]["actor_rollout_ref"]["actor"]["ppo_mini_batch_size"] for role in ROLES] == [256, 256]


def batch_of(*keys: str) -> Any:
    from transfer_queue import KVBatchMeta

    tags = [{"is_padding": key.startswith("pad")} for key in keys]
    return KVBatchMeta(partition_id="train", keys=list(keys), tags=tags)


def test_rows_are_told_apart_by_role() -> None:
    import verl.trainer.ppo.v1  # noqa: F401

    from verl_longshort.verl_plugin.trainer.rows import kinds_of, parts_by_role

    batch = batch_of("u_0_1", "u_0_0", "pad_0_0", "u_1_1", "pad_1_0")
    assert kinds_of(batch) == [1, 0, 2, 1, 2]
    assert [part.keys for part in parts_by_role(batch)] == [["u_0_0", "pad_0_0", "pad_1_0"], ["u_0_1", "u_1_1"]]
    # a role that nothing teaches has no part
    assert [part.keys for part in parts_by_role(batch_of("u_0_1", "pad_0_0"))] == [["u_0_1", "pad_0_0"]]


def test_every_mini_batch_has_rows_of_both_roles() -> None:
    # as they come: the long role's rows, the short role's, synthetic ones
    kinds = [0] * 6 + [1] * 5 + [2] * 5
    order = spread(kinds, ranks=1, updates=4)
    assert sorted(order) == list(range(16))
    for begin in range(0, 16, 4):
        mini = [kinds[row] for row in order[begin : begin + 4]]
        assert {0, 1} <= set(mini), mini


def tied_trainer(**attributes: Any) -> Any:
    import verl.trainer.ppo.v1  # noqa: F401

    from verl_longshort.verl_plugin.trainer.policy_trainer import PolicyTrainer

    trainer = object.__new__(PolicyTrainer)
    vars(trainer).update(name="tied", roles=ROLES, config=composed(), **attributes)
    return trainer


def test_advantages_are_those_that_two_policies_would_get(monkeypatch: pytest.MonkeyPatch) -> None:
    """verl gives all rows of a trajectory the advantage of its last, and compares all rows of a problem."""
    from verl.trainer.ppo.v1 import PPOTrainerSync

    asked = []

    def advantages(self: Any, batch: Any, metrics: dict[str, Any]) -> Any:
        asked.append(batch.keys)
        metrics.update({"rollout_corr/kl": float(len(asked)), "rollout_corr/is_max": float(len(asked))})
        return batch

    monkeypatch.setattr(PPOTrainerSync, "_compute_advantage", advantages)
    trainer = tied_trainer(_credit=SimpleNamespace(rewards={}, weights={}))
    keys, metrics = ["u_0_1", "u_0_0", "u_1_0", "u_1_1", "u_2_0", "pad_0_0"], {}
    batch = batch_of(*keys)
    batch.extra_info["compute_loss"] = False
    returned = trainer._compute_advantage(batch, metrics)
    assert asked == [["u_0_0", "u_1_0", "u_2_0", "pad_0_0"], ["u_0_1", "u_1_1"]]
    # in the order of verl's workers, and without what an earlier phase said of the batch
    assert returned.keys == keys
    assert returned.extra_info == {}
    assert metrics == {"rollout_corr/kl": pytest.approx((4 * 1 + 2 * 2) / 6), "rollout_corr/is_max": 2.0}
    trainer.roles = (Role.SHORT,)
    trainer._compute_advantage(batch, metrics)
    assert asked[-1] == keys


def test_it_learns_from_what_teaches_either_role(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def learn(rows: Any, step: int, *, update: int, credit: Any) -> Any:
        seen.append((rows.keys, step, update))
        return rows, {"actor/lr": 1.0}, {}

    policy = tied_trainer(learn=learn)
    from verl_longshort.verl_plugin.trainer import pair_trainer

    trainer: Any = object.__new__(pair_trainer.PairTrainer)
    trainer.settings = settings_of(composed("longshort.steps_per_round=2"))
    trainer.schedule, trainer.global_steps, trainer._learned = trainer.settings.schedule, 3, {}
    trainer.checkpoints = SimpleNamespace(written={"tied": 2})
    trainer.activity = SimpleNamespace(now=lambda *_: None)
    monkeypatch.setattr(pair_trainer, "own_tokens", lambda rows: dict.fromkeys(rows.keys, 3))
    rows = [batch_of("u_0_0", "u_1_0", "u_2_0"), batch_of("u_0_1", "u_1_1", "u_2_1")]
    # the short role's only row that is not neutral has no other one to be compared with
    neutral = {"u_1_0", "u_0_1", "u_1_1"}
    rewards = {key: RoleReward(total=1.0, terms={}, neutral=key in neutral) for batch in rows for key in batch.keys}
    metrics: dict[str, Any] = {}
    returned = trainer._learn(policy, rows, rewards, metrics)
    assert seen == [(["u_0_0", "u_2_0"], 3, 3)]
    assert sorted(returned.keys) == sorted(rewards)
    assert trainer.checkpoints.written == {}
    assert metrics["tied/actor/lr"] == 1.0
    assert (metrics["long/updated"], metrics["short/updated"], metrics["short/rows/alone"]) == (1.0, 0.0, 1.0)


def test_one_policy_serves_both_roles() -> None:
    from verl_longshort.verl_plugin.trainer import pair_trainer

    trainer: Any = object.__new__(pair_trainer.PairTrainer)
    policy = SimpleNamespace(roles=ROLES, config=composed(), get_llm_client=lambda: "client")
    trainer.policies = {"tied": policy}
    client = trainer.get_llm_client()
    assert client.clients == dict.fromkeys(ROLES, "client")
    assert client.model_configs[Role.LONG] is client.model_configs[Role.SHORT]


def test_its_checkpoints_are_whole_shared_and_deleted(tmp_path: Any) -> None:
    store = CheckpointStore(tmp_path)
    shard = store.policy_folder("tied", 2) / "actor" / "model_world_size_1_rank_0.pt"
    shard.parent.mkdir(parents=True)
    torch.save({}, shard)
    store.share("tied", 4, written=2)
    assert [path.name for path in store._files(4)] == [shard.name]
    store.discard(2)
    assert not store.policy_folder("tied", 2).exists()
    assert [path.name for path in store._files(4)] == [shard.name]


def test_the_record_of_an_exported_policy(tmp_path: Any) -> None:
    import json

    prompts = RolePrompts(long="think", short="answer")
    record = policy_record(said_roles(ROLES), prompts, base="somewhere")
    assert record == {"role": "both", "prompts": {"long": "think", "short": "answer"}, "base": "somewhere"}
    (tmp_path / "longshort_policy.json").write_text(json.dumps(record))
    assert prompt_warnings(dict.fromkeys(ROLES, str(tmp_path)), prompts) == []
    (line,) = prompt_warnings(dict.fromkeys(ROLES, str(tmp_path)), RolePrompts(long="think", short="other"))
    assert "prompts.short" in line


@pytest.mark.parametrize("name", ["tiny", "small", "small_cpu", "qwen7b", "llama8b"])
def test_every_recipe_runs_tied(name: str) -> None:
    path = recipe_folder() / f"{name}.yaml"
    recipe = load_recipe(path, ["tied=true", "output=runs/x"])
    stages = {stage.name: list(stage.command) for stage in recipe.stages}
    assert "longshort.role=both" in stages["sft-tied"]
    assert not {"sft-long", "sft-short"} & stages.keys()
    assert set(recipe.settings["schedule"]) == {"both"}
    assert "longshort.tied=true" in stages["train"]
    models = {word.partition("=")[2] for word in stages["train"] if word.endswith("sft/tied")}
    assert models == {"runs/x/sft/tied"}
    step = recipe.settings["steps_per_round"]
    folder = f"runs/x/pair/tied/global_step_{step}/actor/huggingface"
    assert {word for word in stages["evaluate-L1S1"] if "models." in word} == {
        f"longshort.models.{role}={folder}" for role in ROLES
    }
    untied = {stage.name: list(stage.command) for stage in load_recipe(path, []).stages}
    assert {"sft-long", "sft-short"} <= untied.keys()
    assert not any("tied" in word for command in untied.values() for word in command)
