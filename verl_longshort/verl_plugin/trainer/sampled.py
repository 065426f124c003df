"""Writes down what was sampled in a step and what came of it: some groups, or all (`longshort.log_groups`)."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from longshort_reward import RewardWeights, RoleReward
from longshort_reward.errors import UserError
from transfer_queue import KVBatchMeta

from verl_longshort.data.training_trajectories import (
    SampledReward,
    SampledTrajectory,
    chosen_groups,
    problem_id,
    write_step,
)
from verl_longshort.verl_plugin.trainer.group_reward import ReplayKey, reward_rows
from verl_longshort.verl_plugin.trainer.rows import (
    read_advantages,
    read_extra_fields,
    read_ground_truths,
    without_padding,
)


def log_step(
    root: Path,
    batch: KVBatchMeta,
    learned: Sequence[KVBatchMeta],
    *,
    count: int | None,
    weights: RewardWeights,
    step: int,
    round_name: str = "",
) -> None:
    """Write the trajectories of `count` groups of a step (None: of all) below the folder `root`.

    Args:
        batch: all rows of the step, before TransferQueue forgets them.
        learned: those that the step's learners were given, which have advantages.
        weights: of the reward's terms.

    Raises:
        UserError: the file cannot be written.
    """
    if count == 0:
        return
    trajectories = _read(batch, learned, count=count, weights=weights, step=step, round_name=round_name)
    try:
        write_step(root, step, trajectories)
    except OSError as error:
        remedy = f"the trajectories of step {step} cannot be written: {error}; make room, or set 0 to log none"
        raise UserError("longshort.log_groups", "all" if count is None else count, remedy) from error


def _read(
    batch: KVBatchMeta,
    learned: Sequence[KVBatchMeta],
    *,
    count: int | None,
    weights: RewardWeights,
    step: int,
    round_name: str,
) -> list[SampledTrajectory]:
    keys = {key: ReplayKey.of(key) for key in without_padding(batch).keys}
    # every row of a session holds the whole record, and every session of a group its problem
    rows: dict[str, dict[str, str]] = {}
    for key, parsed in keys.items():
        rows.setdefault(parsed.group, {}).setdefault(parsed.session, key)
    firsts = [next(iter(sessions.values())) for sessions in rows.values()]
    problems = [extra["record"]["problem"] for extra in read_extra_fields(batch.select_keys(firsts))]
    groups = chosen_groups(dict(zip(rows, problems, strict=True)), count)
    records = batch.select_keys([key for group in groups for key in _by_session(rows[group])])
    wanted = set(groups)
    own = [key for key, parsed in keys.items() if parsed.group in wanted]
    extras = dict(zip((keys[key].session for key in records.keys), read_extra_fields(records), strict=True))
    truths = dict(zip(extras, read_ground_truths(records), strict=True))
    facts = [extras[keys[key].session]["reward_extra_info"] for key in own]
    speakers = {session: list(extra["record"]["tokens"]) for session, extra in extras.items()}
    rewards = _rewards(reward_rows(own, facts, weights, step), learned, speakers)
    named = {term.name: weight for term, weight in weights.weighted(step)}
    places = {group: place for place, group in enumerate(groups)}
    return [
        SampledTrajectory(
            step=step,
            round=round_name,
            problem_id=problem_id(extra["record"]["problem"]),
            ground_truth=truths[session],
            group=places[session.rpartition("_")[0]],
            session=int(session.rpartition("_")[2]),
            correct=extra["reward_extra_info"]["acc"] > 0.5,
            weights=named,
            rewards=rewards[session],
            **extra["record"],
        )
        for session, extra in extras.items()
    ]


def _rewards(
    rewards: Mapping[str, RoleReward], learned: Sequence[KVBatchMeta], speakers: Mapping[str, Sequence[str]]
) -> dict[str, dict[str, SampledReward]]:
    """Session -> role -> the reward of its row, with the advantage where it was learned from.

    `speakers`: session -> who spoke; the row of a single model is its only speaker's, whatever its key says.
    """
    advantages = {
        key: value
        for part in learned
        if (chosen := [key for key in part.keys if key in rewards])
        for key, value in read_advantages(part.select_keys(chosen)).items()
    }
    found: dict[str, dict[str, SampledReward]] = {session: {} for session in speakers}
    for key, reward in rewards.items():
        parsed = ReplayKey.of(key)
        spoke = speakers[parsed.session]
        found[parsed.session][parsed.role.value if parsed.role.value in spoke else spoke[0]] = SampledReward(
            total=reward.total, terms=reward.terms, neutral=reward.neutral, advantage=advantages.get(key)
        )
    return found


def _by_session(sessions: Mapping[str, str]) -> list[str]:
    return [sessions[name] for name in sorted(sessions, key=lambda name: int(name.rpartition("_")[2]))]
