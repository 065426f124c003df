"""The agent loops of a pair and of a single model: one verl session is one trajectory, graded here.

Every trajectory runs its own turns; nothing waits for other trajectories. A pair's session returns one row per role in
the order of `ROLES`, so the last part of a TransferQueue key `{uid}_{session}_{i}` names the role; a single model's
returns one row.
"""

import asyncio
import uuid
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from longshort_reward import format_match, match_answer
from longshort_reward.errors import UserError
from longshort_reward.protocol import ROLES, Role
from verl.experimental.agent_loop.agent_loop import AgentLoopBase, AgentLoopMetrics, AgentLoopOutput, register
from verl.utils.profiler import simple_timer

from verl_longshort.base.seeds import derived_seed
from verl_longshort.config.pair import settings_of
from verl_longshort.config.single_model import single_settings_of
from verl_longshort.core.environment import Environment, StopReason
from verl_longshort.core.role_view import RoleView
from verl_longshort.core.single_model import SingleAnswer, SingleMode, prompt_of, solve_alone, well_formed
from verl_longshort.core.trajectory import Trajectory, run_trajectory
from verl_longshort.problems.reader import user_message
from verl_longshort.verl_plugin.rollout.clients import PairClient, ServedPolicy, participants
from verl_longshort.verl_plugin.rollout.failures import FailureKind, failing_as, note_failure

Value = TypeVar("Value")
_made: dict[Callable[[Any], Any], tuple[Any, Any]] = {}


def once(make: Callable[[Any], Value], source: Any) -> Value:
    """`make(source)`, kept while the source is the same object: a loop object is made for every trajectory."""
    if make not in _made or _made[make][0] is not source:
        _made[make] = (source, make(source))
    value: Value = _made[make][1]
    return value


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
            Two outputs, in the order of `ROLES`, with token ids of each role's own tokenizer; none when the trajectory
            failed, which `failures` tells the trainer.
        """
        try:
            return await self._solve(sampling_params, sample)
        except Exception as error:
            await note_failure(error, sample)
            return []

    async def _solve(self, sampling_params: dict[str, Any], sample: dict[str, Any]) -> list[AgentLoopOutput]:
        if not isinstance(self.server_manager, PairClient):
            remedy = "this agent loop needs two policies; set trainer.v1.trainer_mode=longshort"
            raise UserError("actor_rollout_ref.rollout.agent.default_agent_loop", "longshort", remedy)
        settings = once(settings_of, self.config)
        timing: dict[str, float] = {}
        problem, models = user_message(sample["raw_prompt"]), once(participants, self.server_manager)
        views = {role: models[role].view(role, settings.prompts, problem) for role in ROLES}
        for role, view in views.items():
            _check_prompt(self.config, f"the {role} model's prompt of {problem[:80]!r}", view.prompt_ids)
        with failing_as(FailureKind.ENGINE), simple_timer("generate_sequences", timing):
            trajectory = await run_trajectory(
                problem,
                models,
                Environment(settings.limits),
                settings.prompts,
                {**sampling_params, "seed": session_seed(self.rollout_config.seed, sample)},
                views=views,
            )
        with failing_as(FailureKind.GRADER), simple_timer("compute_score", timing):
            answered = trajectory.state.stop_reason is StopReason.ANSWERED
            text = trajectory.state.final_text if answered else None
            correct = await _matches(text, sample, settings.answer_timeout_s)
        facts = trajectory_facts(trajectory, correct)
        # validations are compared problem by problem
        facts["problem"] = f"{sample.get('data_source')}/{sample['index']}"
        version = int(sample["global_steps"]) - 1
        return [self._row(trajectory, role, facts, timing, version) for role in ROLES]

    def _row(
        self, trajectory: Trajectory, role: Role, facts: dict[str, Any], timing: dict[str, float], version: int
    ) -> AgentLoopOutput:
        view = trajectory.views[role]
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
                **weight_versions([extra["global_steps"] for extra in trajectory.extras[role]], version),
                "role": role.value,
                "own_turns": view.own_turns,
                "record": trajectory.to_record(),
                "reward_extra_info": facts,
            },
        )


@register("longshort_single")
class SingleAgentLoop(AgentLoopBase):
    """Asks a single model once and grades its answer."""

    async def run(self, sampling_params: dict[str, Any], **sample: Any) -> list[AgentLoopOutput]:
        """One answer to the problem of the data row `sample`, or none; see `LongShortAgentLoop.run`."""
        try:
            return [await self._solve(sampling_params, sample)]
        except Exception as error:
            await note_failure(error, sample)
            return []

    async def _solve(self, sampling_params: dict[str, Any], sample: dict[str, Any]) -> AgentLoopOutput:
        settings = once(single_settings_of, self.config)
        timing: dict[str, float] = {}
        problem = user_message(sample["raw_prompt"])
        prompt = prompt_of(self.tokenizer, settings.mode, settings.system_prompt, problem)
        _check_prompt(self.config, f"the prompt of {problem[:80]!r}", prompt)
        with failing_as(FailureKind.ENGINE), simple_timer("generate_sequences", timing):
            answer = await solve_alone(
                problem,
                tokenizer=self.tokenizer,
                generate=ServedPolicy(self.server_manager),
                mode=settings.mode,
                system_prompt=settings.system_prompt,
                token_budget=min(settings.token_budget, self.config.data.max_response_length),
                request_id=uuid.uuid4().hex,
                sampling={**sampling_params, "seed": session_seed(self.rollout_config.seed, sample)},
            )
            if not answer.token_ids:
                raise RuntimeError("the engine gave no token, and verl cannot store an empty response")
        with failing_as(FailureKind.GRADER), simple_timer("compute_score", timing):
            correct = await _matches(answer.text if answer.answered else None, sample, settings.answer_timeout_s)
        facts = answer_facts(answer, settings.mode, correct)
        return AgentLoopOutput(
            prompt_ids=answer.prompt_ids,
            response_ids=answer.token_ids,
            response_mask=[1] * len(answer.token_ids),
            response_logprobs=answer.logprobs,
            # the whole group's reward takes its place before the model learns
            reward_score=facts["acc"],
            num_turns=1,
            metrics=AgentLoopMetrics(**timing),
            extra_fields={
                **weight_versions([answer.extra.get("global_steps")], int(sample["global_steps"]) - 1),
                "record": answer_record(user_message(sample["raw_prompt"]), answer),
                "reward_extra_info": facts,
            },
        )


def trajectory_facts(trajectory: Trajectory, correct: bool) -> dict[str, Any]:
    """What a person and the group reward want to know of one trajectory; one flat dict of scalars."""
    state = trajectory.state
    facts: dict[str, Any] = {
        "acc": float(correct),
        "tokens": float(state.total_tokens),
        "turns": float(len(state.turns)),
        "rethinks": float(state.rethinks),
        "stop_reason": state.stop_reason.value if state.stop_reason else "",
        "fault_role": state.fault_role.value if state.fault_role else "",
    }
    for role in ROLES:
        facts[f"tokens_{role}"] = float(state.tokens[role])
        facts[f"turns_{role}"] = float(sum(turn.role is role for turn in state.turns))
        facts[f"format_{role}"] = format_match(state.turns, role)
    return facts


def answer_facts(answer: SingleAnswer, mode: SingleMode, correct: bool) -> dict[str, Any]:
    """What a person and the reward want to know of a single model's answer; one flat dict of scalars."""
    return {
        "acc": float(correct),
        "format": float(well_formed(mode, answer)),
        "tokens": float(answer.tokens),
        "rethinks": float(answer.rethinks),
        "answered": float(answer.answered),
        "stop_reason": answer.stop_reason.value,
    }


def answer_record(problem: str, answer: SingleAnswer) -> dict[str, Any]:
    """A single model's answer, one turn, as plain JSON values with the keys of `Trajectory.to_record`."""
    return {
        "problem": problem,
        "turns": [{"role": "single", "text": answer.text, "tokens": answer.tokens, "fault": None}],
        "stop_reason": str(answer.stop_reason),
        "fault_role": None,
        "tokens": {"single": answer.tokens},
        "rethinks": answer.rethinks,
    }


def response_of(view: RoleView, filler_id: int) -> dict[str, Any]:
    """Ids, mask and log-probs of a row's response; all of the same length.

    A role that was never heard of (its partner's first turn was empty) still needs one token, because verl
    cannot store an empty response: one masked filler.
    """
    if not view.response_ids:
        return {"ids": [filler_id], "mask": [0], "logprobs": [0.0]}
    return {"ids": view.response_ids, "mask": view.response_mask, "logprobs": view.response_logprobs}


def weight_versions(seen: Sequence[int | None], fallback: int) -> dict[str, int]:
    """The training steps whose weights wrote a row's turns; `fallback` where no engine told one."""
    versions = [version for version in seen if version is not None] or [fallback]
    return {"global_steps": versions[-1], "min_global_steps": min(versions), "max_global_steps": max(versions)}


def session_seed(base: int, sample: dict[str, Any]) -> int:
    """One seed per (step, problem, session), and per draw where a step draws a problem more than once.

    Sampling does not depend on what else is in the engine's batch, and a resumed run samples what an uninterrupted
    one would have sampled.
    """
    names = [sample["global_steps"], sample["index"], sample["session_id"]]
    if draw := sample.get("draw"):
        names.append(draw)
    return derived_seed(base, "/".join(map(str, names)), bits=32)


def _check_prompt(config: Any, what: str, prompt_ids: Sequence[int]) -> None:
    limit = config.data.max_prompt_length
    with failing_as(FailureKind.PROMPT):
        if len(prompt_ids) > limit:
            raise UserError("data.max_prompt_length", limit, f"{what} has {len(prompt_ids)} tokens; raise it")


async def _matches(text: str | None, sample: dict[str, Any], timeout_s: float) -> bool:
    if text is None:
        return False
    truth = sample["reward_model"]["ground_truth"]
    return await asyncio.to_thread(match_answer, text, truth, timeout_s=timeout_s)
