"""The two-agent loop: one verl session is one joint trajectory and returns one row per role.

Every trajectory runs its own turns; nothing waits for other trajectories. Rows come in the order of `ROLES`,
so the last part of a TransferQueue key `{uid}_{session}_{i}` names the role.
"""

import asyncio
from typing import Any

from longshort_reward import format_match, match_answer
from longshort_reward.errors import UserError
from longshort_reward.protocol import ROLES, Role
from verl.experimental.agent_loop.agent_loop import AgentLoopBase, AgentLoopMetrics, AgentLoopOutput, register
from verl.utils.profiler import simple_timer

from verl_longshort.base.seeds import derived_seed
from verl_longshort.config.pair import PairSettings, settings_of
from verl_longshort.core.environment import Environment, StopReason
from verl_longshort.core.role_view import RoleView
from verl_longshort.core.trajectory import Participant, Trajectory, run_trajectory
from verl_longshort.problems.reader import user_message
from verl_longshort.verl_plugin.rollout.clients import PairClient, participants


@register("longshort")
class LongShortAgentLoop(AgentLoopBase):
    """Runs one problem with both policies and grades the answer."""

    async def run(self, sampling_params: dict[str, Any], **sample: Any) -> list[AgentLoopOutput]:
        """One joint trajectory.

        Args:
            sampling_params: verl's sampling parameters for this run (temperature, top_p, …).
            sample: the data row: `raw_prompt`, `reward_model.ground_truth`, `index`, `global_steps`,
                `session_id`.

        Returns:
            Two outputs, in the order of `ROLES`, with token ids of each role's own tokenizer.
        """
        if not isinstance(self.server_manager, PairClient):
            remedy = "this agent loop needs two policies; set trainer.v1.trainer_mode=longshort"
            raise UserError("actor_rollout_ref.rollout.agent.default_agent_loop", "longshort", remedy)
        settings = _settings(self.config)
        timing: dict[str, float] = {}
        with simple_timer("generate_sequences", timing):
            trajectory = await run_trajectory(
                user_message(sample["raw_prompt"]),
                _participants(self.server_manager),
                Environment(settings.limits),
                settings.prompts,
                {**sampling_params, "seed": session_seed(self.rollout_config.seed, sample)},
            )
        with simple_timer("compute_score", timing):
            correct = await _grade(trajectory, sample, settings.answer_timeout_s)
        facts = trajectory_facts(trajectory, correct)
        version = int(sample["global_steps"]) - 1
        return [self._row(trajectory, role, facts, timing, version) for role in ROLES]

    def _row(
        self,
        trajectory: Trajectory,
        role: Role,
        facts: dict[str, Any],
        timing: dict[str, float],
        version: int,
    ) -> AgentLoopOutput:
        view = trajectory.views[role]
        self._check_fits(view, role)
        response = response_of(view, int(self.tokenizer.eos_token_id))
        return AgentLoopOutput(
            prompt_ids=view.prompt_ids,
            response_ids=response["ids"],
            response_mask=response["mask"],
            response_logprobs=response["logprobs"],
            reward_score=float(facts["acc"]),
            num_turns=len(trajectory.state.turns),
            metrics=AgentLoopMetrics(**timing),
            extra_fields={
                **weight_versions(trajectory, role, version),
                "role": role.value,
                "own_turns": view.own_turns,
                "record": trajectory.to_record(),
                "reward_extra_info": facts,
            },
        )

    def _check_fits(self, view: RoleView, role: Role) -> None:
        for key, ids in (("max_prompt_length", view.prompt_ids), ("max_response_length", view.response_ids)):
            limit = self.config.data[key]
            if len(ids) > limit:
                remedy = f"a {role} row has {len(ids)} tokens; raise it or lower longshort.environment's budgets"
                raise UserError(f"data.{key}", limit, remedy)


def trajectory_facts(trajectory: Trajectory, correct: bool) -> dict[str, Any]:
    """What a person and the group reward want to know of one trajectory; one flat dict of scalars."""
    state = trajectory.state
    turns = {role: [t for t in state.turns if t.role is role] for role in ROLES}
    facts: dict[str, Any] = {
        "acc": float(correct),
        "tokens": float(sum(state.tokens.values())),
        "turns": float(len(state.turns)),
        "rethinks": float(state.rethinks),
        "stop_reason": state.stop_reason.value if state.stop_reason else "",
        "fault_role": state.fault_role.value if state.fault_role else "",
    }
    for role in ROLES:
        facts[f"tokens_{role}"] = float(state.tokens[role])
        facts[f"turns_{role}"] = float(len(turns[role]))
        facts[f"format_{role}"] = float(format_match(turns[role], role))
    return facts


def response_of(view: RoleView, filler_id: int) -> dict[str, Any]:
    """Ids, mask and log-probs of a row's response; all of the same length.

    A role that was never heard of (its partner's first turn was empty) still needs one token, because verl
    cannot store an empty response: one masked filler.
    """
    if not view.response_ids:
        return {"ids": [filler_id], "mask": [0], "logprobs": [0.0]}
    return {"ids": view.response_ids, "mask": view.response_mask, "logprobs": view.response_logprobs}


def weight_versions(trajectory: Trajectory, role: Role, fallback: int) -> dict[str, int]:
    """The training steps whose weights wrote this role's turns; `fallback` when it never spoke."""
    seen = [extra["global_steps"] for extra in trajectory.extras[role]]
    versions = [v for v in seen if v is not None] or [fallback]
    return {
        "global_steps": versions[-1],
        "min_global_steps": min(versions),
        "max_global_steps": max(versions),
    }


async def _grade(trajectory: Trajectory, sample: dict[str, Any], timeout_s: float) -> bool:
    if trajectory.state.stop_reason is not StopReason.ANSWERED:
        return False
    truth = sample["reward_model"]["ground_truth"]
    return await asyncio.to_thread(match_answer, trajectory.state.final_text, truth, timeout_s=timeout_s)


def session_seed(base: int, sample: dict[str, Any]) -> int:
    """One seed per (step, problem, session).

    Sampling does not depend on what else is in the engine's batch, and a resumed run samples what an uninterrupted
    one would have sampled.
    """
    return derived_seed(base, f"{sample['global_steps']}/{sample['index']}/{sample['session_id']}", bits=32)


# a loop object is made for every trajectory; what does not depend on it is made once per process
_parsed: tuple[Any, PairSettings] | None = None
_served: tuple[PairClient, dict[Role, Participant]] | None = None


def _participants(client: PairClient) -> dict[Role, Participant]:
    global _served
    if _served is None or _served[0] is not client:
        _served = (client, participants(client))
    return _served[1]


def _settings(config: Any) -> PairSettings:
    global _parsed
    if _parsed is None or _parsed[0] is not config:
        _parsed = (config, settings_of(config))
    return _parsed[1]
