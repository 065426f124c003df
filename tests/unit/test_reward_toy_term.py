"""A new term is one file and one line of configuration: it reaches the trained reward, the metrics and the report."""

import importlib
import json
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import longshort_reward.terms as package
import pytest
from helpers.run import make_run
from longshort_reward import RewardWeights, all_terms
from longshort_reward.errors import UserError

from verl_longshort.config.compose import compose_config
from verl_longshort.config.pair import settings_of
from verl_longshort.report.curves import curves_section
from verl_longshort.report.run_dir import read_runs
from verl_longshort.report.trajectories import sample_trajectories
from verl_longshort.verl_plugin.trainer.group_reward import reward_rows, role_metrics, weight_metrics

A_TERM = '''
    """A toy: few turns are good."""

    from longshort_reward.protocol import ROLES
    from longshort_reward.terms.term import Term


    class FewTurns(Term):
        """1 for a trajectory of two turns, half of it for one of four."""

        name = "few_turns"
        label = "few turns"
        title = "Few turns"
        about = "Two over the number of turns; before its weight."
        joint = True

        def score(self, group):
            turns = [outcome.facts["turns"] for outcome in group]
            counts = [len(one) if isinstance(one, list) else one for one in turns]
            return [dict.fromkeys(ROLES, 2.0 / count) for count in counts]
'''
KEYS = ["u_0_0", "u_0_1", "u_1_0", "u_1_1"]


def settings(*overrides: str):
    given = [
        "longshort.policies.long.actor_rollout_ref.model.path=long",
        "longshort.policies.short.actor_rollout_ref.model.path=short",
        *("data.train_files=train.parquet", "data.val_files=val.parquet", "device=cpu"),
    ]
    return settings_of(compose_config("longshort_trainer", [*given, *overrides], unused=("reward.reward_model",)))


def facts(turns: float) -> dict[str, object]:
    by_role = {f"{kind}_{role}": 1.0 for kind in ("format", "turns", "tokens") for role in ("long", "short")}
    base = {"acc": 1.0, "tokens": 100.0, "rethinks": 0.0, "stop_reason": "answered", "fault_role": ""}
    return {**base, **by_role, "turns": turns}


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The package with one more module among its terms."""
    (tmp_path / "few_turns.py").write_text(textwrap.dedent(A_TERM))
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    all_terms.cache_clear()
    yield
    all_terms.cache_clear()
    sys.modules.pop("longshort_reward.terms.few_turns", None)


def test_it_reaches_reward_and_metrics(toy: None) -> None:
    both = [fact for turns in (2.0, 4.0) for fact in [facts(turns)] * 2]
    without = reward_rows(KEYS, both, settings().weights, 1)
    weights = settings("+longshort.reward.terms.few_turns=0.5").weights
    rewards = reward_rows(KEYS, both, weights, 1)
    for key, worth in zip(KEYS, (0.5, 0.5, 0.25, 0.25), strict=True):
        assert rewards[key].total == without[key].total + worth
    assert "few_turns" not in without["u_0_0"].terms
    assert role_metrics(rewards)["long/reward/few_turns"] == 0.75
    assert weight_metrics(weights, 1, "pair")["pair/weight/few_turns"] == 0.5


def test_its_weight_may_be_a_ramp_that_ends_with_the_run(toy: None) -> None:
    ramp = "+longshort.reward.terms.few_turns={start: 0, end: 1, begin_step: 0, end_step: null}"
    chosen = settings("longshort.schedule=[both]", "longshort.steps_per_round=4", ramp)
    assert [dict(weight_metrics(chosen.weights, step, "p"))["p/weight/few_turns"] for step in (0, 2, 4)] == [0, 0.5, 1]


def test_it_reaches_the_report(toy: None, tmp_path: Path) -> None:
    root = make_run(tmp_path / "run")
    values = [{f"{role}/reward/few_turns": 0.5 + 0.1 * step for role in ("long", "short")} for step in (1, 2)]
    lines = [json.dumps({"step": step, "data": data}) + "\n" for step, data in enumerate(values, start=1)]
    (root / "pair" / "metrics.9.jsonl").write_text("".join(lines))
    runs = read_runs([root], None)
    page = str(curves_section(runs).body)
    assert "Few turns over the steps" in page
    assert "Two over the number of turns; before its weight." in page
    rows = sample_trajectories(runs, limit=50, seed=0).data["rows"]
    assert any("few turns" in row["terms"] for row in rows)


def test_a_class_of_ones_own_is_found_by_its_dotted_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_rewards.py").write_text(textwrap.dedent(A_TERM))
    monkeypatch.syspath_prepend(tmp_path)
    weights = settings("+longshort.reward.terms={my_rewards.FewTurns: 0.5}").weights
    rewards = reward_rows(KEYS[:2], [facts(2.0)] * 2, weights, 1)
    assert rewards["u_0_0"].terms["few_turns"] == 1.0
    importlib.invalidate_caches()


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ({"brevty": 0.1}, "longshort.reward.terms = brevty: is no term; known: em, fm, lm, rethink"),
        ({"no.such.Module": 0.1}, "longshort.reward.terms = no.such.Module: cannot be imported"),
        ({"lm": "much"}, "longshort.reward.terms.lm = much: must be a block with the keys start, end"),
        ({"em": -1}, "longshort.reward.terms.em.start = -1: must be 0 or more"),
    ],
)
def test_a_mistake_is_named(terms: dict[str, object], message: str) -> None:
    mu = {"start": 0, "end": 0, "begin_step": 0, "end_step": 0}
    with pytest.raises(UserError) as caught:
        RewardWeights.from_config({"mu": mu, "terms": terms})
    assert str(caught.value).startswith(message)
