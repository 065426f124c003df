"""`algorithm.filter_groups`: which groups are dropped, and that a step ends. verl's own loop over a stand-in queue."""

import random
from types import SimpleNamespace

import numpy as np
import pytest
from longshort_reward import Ramp, RewardWeights
from longshort_reward.errors import UserError
from longshort_reward.protocol import ROLES, Role
from omegaconf import OmegaConf

from verl_longshort.config.compose import compose_config
from verl_longshort.verl_plugin.checks.learning_checks import PAIR_FACTS, SINGLE_FACTS, check_filter
from verl_longshort.verl_plugin.trainer.group_reward import ReplayKey, shared_value

pytestmark = pytest.mark.integration
WEIGHTS = RewardWeights(mu=Ramp(start=0.0, end=0.2, begin_step=0, end_step=10), rethink=0.1)
WANTED = 4
UNUSED = ("reward.reward_model",)


def facts(**changes):
    base = {"acc": 1.0, "tokens": 100.0, "turns": 2.0, "rethinks": 0.0, "stop_reason": "answered", "fault_role": ""}
    return {**base, **{f"{kind}_{role}": 1.0 for kind in ("format", "turns", "tokens") for role in Role}, **changes}


MIXED = [facts(), facts(acc=0.0)]
SOLVED = [facts(), facts()]
SHORTER = [facts(), facts(tokens=50.0)]
SHORT_FAULT = [facts(), facts(acc=0.0, stop_reason="malformed", fault_role="short", format_short=0.0)]


def shared(sessions, *, roles=ROLES, metric="reward", step=0):
    keys = [f"u_{number}_{index}" for number in range(len(sessions)) for index in (0, 1)]
    both = [fact for fact in sessions for _ in ROLES]
    return shared_value(keys, both, WEIGHTS, step, roles=roles, metric=metric)


def test_a_group_teaches_when_rewards_of_a_learner_vary():
    assert shared(MIXED) is None
    assert shared(SOLVED) == pytest.approx(1.1)
    # mu is 0 in step 0
    assert shared(SHORTER) == pytest.approx(1.1)
    assert shared(SHORTER, step=5) is None
    assert shared(SHORTER, step=5, metric="acc") == 1.0


def test_neutral_rows_count_for_nobody():
    """The short role broke the protocol: its own rewards differ, and the long role has one row left."""
    assert shared(SHORT_FAULT, roles=[Role.SHORT]) is None
    assert shared(SHORT_FAULT, roles=[Role.LONG]) == pytest.approx(1.1)
    assert shared(SHORT_FAULT) is None
    assert shared([SHORT_FAULT[1]] * 2, roles=[Role.LONG]) == 0.0


class Queue:
    """Stands in for TransferQueue and the agent loops: each time it is looked at, one row ends, of any group."""

    def __init__(self, groups, order):
        from verl_longshort.verl_plugin.trainer.dynamic_sampling import Draws

        self.groups, self.asked, self.order = iter(groups), 0, random.Random(order)
        self.tags, self.facts, self.running = {}, {}, []
        self.draws = Draws()

    def ask(self, prompts):
        from verl.utils import tensordict_utils

        named = np.array([f"g{self.asked + number}" for number in range(prompts)], dtype=object)
        self.draws.number(tensordict_utils.get_tensordict({"index": named, "uid": named}), 0)
        for group in named:
            self.asked += 1
            self.tags[group] = {"is_prompt": True, "status": "running", "global_steps": 1}
            for number, fact in enumerate(next(self.groups)):
                for index in (0, 1):
                    self.running.append(f"{group}_{number}_{index}")
                    self.facts[f"{group}_{number}_{index}"] = {"reward_extra_info": fact}

    def kv_list(self):
        if self.running:
            ended = self.running.pop(self.order.randrange(len(self.running)))
            self.tags[ended] = {}
            group = ReplayKey.of(ended).group
            if not any(ReplayKey.of(key).group == group for key in self.running):
                self.tags[group] = {**self.tags[group], "status": "finished"}
        return {"train": dict(self.tags)}

    def kv_batch_get(self, keys, partition_id, select_fields):
        return {select_fields[0]: [self.facts[key] for key in keys]}

    def kv_clear(self, keys, partition_id):
        for key in keys:
            del self.tags[key]


@pytest.fixture
def sampled(monkeypatch):
    """Samples a step from `groups`; `(accuracies of each group in the batch, metrics, prompts that were asked for)`."""
    import verl.trainer.ppo.v1.replay_buffer as buffers

    import verl_longshort.verl_plugin.trainer.rows as rows
    from verl_longshort.verl_plugin.trainer.dynamic_sampling import FilteringReplayBuffer

    def sample(groups, *, batches=3, enable=True, inflight=1, order=0):
        queue = Queue(groups, order)
        for module in (buffers, rows):
            monkeypatch.setattr(module, "tq", queue)
        chosen = {"enable": enable, "metric": "reward"}
        chosen |= {"max_num_gen_batches": batches, "max_inflight_gen_batches": inflight}
        sampler = {"max_off_policy_threshold": None, "max_off_policy_strategy": "drop", "sampler_kwargs": {}}
        config = {
            "algorithm": {"filter_groups": chosen},
            "data": {"train_batch_size": WANTED},
            "trainer": {"v1": {"sampler": sampler}},
        }
        trainer = SimpleNamespace(
            config=OmegaConf.create(config), trainer_mode="sync", _add_prompts_to_generate=queue.ask
        )

        def value(keys, facts, step):
            return shared_value(keys, facts, WEIGHTS, step, roles=ROLES, metric="reward")

        buffer = FilteringReplayBuffer(trainer, poll_interval=0.0, shared_value=value, draws=queue.draws)
        queue.ask(WANTED)
        batch, metrics = buffer.sample(global_steps=0, partition_id="train", batch_size=WANTED)
        sample.keys = batch.keys
        accuracies = {}
        for key in batch.keys:
            fact = queue.facts[key]["reward_extra_info"]
            accuracies.setdefault(ReplayKey.of(key).group, set()).add(fact["acc"])
        return list(accuracies.values()), metrics, queue.asked

    return sample


def test_groups_that_teach_nobody_are_replaced(sampled):
    groups = [SOLVED, MIXED, SOLVED, MIXED, SOLVED, MIXED, MIXED, MIXED, MIXED]
    batch, metrics, asked = sampled(groups)
    assert batch == [{0.0, 1.0}] * WANTED
    assert metrics["training/filter_groups/unvarying"] == 0
    assert metrics["training/filter_groups/generated"] == asked <= 3 * WANTED
    assert metrics["training/filter_groups/evicted_samples"] >= 2
    # of every group that was sampled, kept or not, and of its trajectories once
    assert metrics["training/filter_groups/tokens"] == sum(fact["tokens"] for group in groups[:asked] for fact in group)


@pytest.mark.parametrize("enable", [False, True])
def test_what_a_step_learns_from_does_not_depend_on_what_ends_first(sampled, enable):
    groups = [SOLVED, MIXED, SOLVED, MIXED, SOLVED, SOLVED, MIXED, SOLVED, MIXED, MIXED, MIXED, MIXED]
    _, metrics, asked = sampled(groups, enable=enable)
    keys = sampled.keys
    names = ["g1", "g3", "g6", "g8"] if enable else ["g0", "g1", "g2", "g3"]
    assert keys == [f"{name}_{number}_{index}" for name in names for number in (0, 1) for index in (0, 1)]
    for order in range(1, 20):
        assert sampled(groups, enable=enable, order=order)[1:] == (metrics, asked)
        assert sampled.keys == keys


def test_replacements_are_asked_for_when_all_groups_have_ended(sampled):
    # two of four teach: twice the missing two are asked for, of which one teaches; then twice the missing one
    groups = [SOLVED, MIXED, SOLVED, MIXED, SOLVED, SOLVED, MIXED, SOLVED, MIXED, MIXED]
    assert sampled(groups, batches=9)[2] == WANTED + 4 + 2


@pytest.mark.parametrize("inflight", [1, 2])
@pytest.mark.parametrize("teaching", [0, 1, 3])
def test_a_step_ends_when_it_has_generated_enough(sampled, teaching, inflight):
    groups = [*[MIXED] * teaching, *[SOLVED] * 100]
    batch, metrics, asked = sampled(groups, inflight=inflight)
    assert asked == metrics["training/filter_groups/generated"] <= 3 * WANTED
    # whole batches: what teaches nobody fills them
    assert sorted(map(len, batch)) == [*[1] * (WANTED - teaching), *[2] * teaching]
    assert metrics["training/filter_groups/unvarying"] == WANTED - teaching


def test_a_problem_that_a_step_draws_again_is_sampled_anew():
    """Replacements may reach into the next epoch."""
    from verl.utils import tensordict_utils

    from verl_longshort.verl_plugin.rollout.agent_loop import session_seed
    from verl_longshort.verl_plugin.trainer.dynamic_sampling import Draws

    def seeds(step, *problems):
        names = np.array([str(number) for number in range(len(problems))], dtype=object)
        batch = tensordict_utils.get_tensordict({"index": np.array(problems, dtype=object), "uid": names})
        numbered = draws.number(batch, step)
        samples = [{"index": one["index"], "draw": one["draw"]} for one in numbered]
        return [session_seed(0, {**sample, "global_steps": step, "session_id": 0}) for sample in samples]

    draws = Draws()
    first = seeds(1, 5, 6, 5)
    assert first[0] == session_seed(0, {"index": 5, "global_steps": 1, "session_id": 0})
    assert len({*first, *seeds(1, 5, 6)}) == 5
    draws = Draws()
    assert seeds(1, 5, 6, 5) == first
    assert seeds(2, 5)[0] == session_seed(0, {"index": 5, "global_steps": 2, "session_id": 0})


def test_without_it_verls_buffer_is_as_it_was(sampled):
    batch, metrics, asked = sampled([SOLVED, MIXED, SOLVED, MIXED], enable=False)
    assert sorted(map(len, batch)) == [1, 1, 2, 2]
    assert (asked, metrics) == (WANTED, {})


def composed(*overrides):
    models = [f"longshort.policies.{role}.actor_rollout_ref.model.path=/nowhere" for role in ("long", "short")]
    given = [*models, "data.train_files=/nowhere", "data.val_files=/nowhere", *overrides]
    return compose_config("longshort_trainer", given, unused=UNUSED)


ON = ("algorithm.filter_groups.enable=true", "algorithm.filter_groups.max_num_gen_batches=3")


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (["algorithm.filter_groups.max_num_gen_batches=0"], "algorithm.filter_groups.max_num_gen_batches = 0"),
        (["algorithm.filter_groups.metric=score"], "algorithm.filter_groups.metric = score"),
        (["algorithm.filter_groups.max_inflight_gen_batches=0"], "algorithm.filter_groups.max_inflight"),
        (["algorithm.filter_groups=null"], "algorithm.filter_groups = None: leave it"),
        (["actor_rollout_ref.rollout.n=1"], "actor_rollout_ref.rollout.n = 1"),
    ],
)
def test_a_filter_that_cannot_work(overrides, key):
    with pytest.raises(UserError) as error:
        check_filter(composed(*(() if "null" in str(overrides) else ON), *overrides), PAIR_FACTS)
    assert str(error.value).startswith(key)


def test_a_filter_that_works():
    check_filter(composed(*ON), PAIR_FACTS)
    check_filter(composed(*ON, "algorithm.filter_groups.metric=acc"), SINGLE_FACTS)
    check_filter(composed(), PAIR_FACTS)
