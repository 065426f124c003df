"""The agent loop of a single model: one verl session is one whole answer, graded here."""

import asyncio
import uuid
from typing import Any

from longshort_reward import match_answer
from longshort_reward.errors import UserError
from verl.experimental.agent_loop.agent_loop import AgentLoopBase, AgentLoopMetrics, AgentLoopOutput, register
from verl.utils.profiler import simple_timer

from verl_longshort.config.single_model import SingleSettings, single_settings_of
from verl_longshort.core.single_model import SingleAnswer, solve_alone, well_formed
from verl_longshort.problems.reader import user_message
from verl_longshort.verl_plugin.rollout.agent_loop import session_seed
from verl_longshort.verl_plugin.rollout.clients import ServedPolicy


@register("longshort_single")
class SingleAgentLoop(AgentLoopBase):
    """Asks the model once and grades the answer."""

    async def run(self, sampling_params: dict[str, Any], **sample: Any) -> AgentLoopOutput:
        """One answer to the problem of the data row `sample`; see `LongShortAgentLoop.run`."""
        settings = _settings(self.config)
        timing: dict[str, float] = {}
        with simple_timer("generate_sequences", timing):
            answer = await solve_alone(
                user_message(sample["raw_prompt"]),
                tokenizer=self.tokenizer,
                generate=ServedPolicy(self.server_manager),
                mode=settings.mode,
                system_prompt=settings.system_prompt,
                token_budget=settings.token_budget,
                request_id=uuid.uuid4().hex,
                sampling={**sampling_params, "seed": session_seed(self.rollout_config.seed, sample)},
            )
        self._check(answer)
        with simple_timer("compute_score", timing):
            correct = await _grade(answer, sample, settings.answer_timeout_s)
        return _output(answer, answer_facts(answer, settings, correct), timing, sample)

    def _check(self, answer: SingleAnswer) -> None:
        if not answer.token_ids:
            raise RuntimeError("the engine gave no token, and verl cannot store an empty response")
        for key, ids in (("max_prompt_length", answer.prompt_ids), ("max_response_length", answer.token_ids)):
            limit = self.config.data[key]
            if len(ids) > limit:
                raise UserError(f"data.{key}", limit, f"a row has {len(ids)} tokens; raise it")


def answer_facts(answer: SingleAnswer, settings: SingleSettings, correct: bool) -> dict[str, Any]:
    """What a person and the reward want to know of one answer; one flat dict of scalars."""
    return {
        "acc": float(correct),
        "format": float(well_formed(settings.mode, answer)),
        "tokens": float(answer.tokens),
        "answered": float(answer.answered),
        "stop_reason": answer.stop_reason.value,
    }


def _output(
    answer: SingleAnswer, facts: dict[str, Any], timing: dict[str, float], sample: dict[str, Any]
) -> AgentLoopOutput:
    version = answer.extra.get("global_steps")
    version = int(sample["global_steps"]) - 1 if version is None else version
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
            "global_steps": version,
            "min_global_steps": version,
            "max_global_steps": version,
            "text": answer.text,
            "reward_extra_info": facts,
        },
    )


async def _grade(answer: SingleAnswer, sample: dict[str, Any], timeout_s: float) -> bool:
    if not answer.answered:
        return False
    truth = sample["reward_model"]["ground_truth"]
    return await asyncio.to_thread(match_answer, answer.text, truth, timeout_s=timeout_s)


# a loop object is made for every answer; the settings are read once per process
_parsed: tuple[Any, SingleSettings] | None = None


def _settings(config: Any) -> SingleSettings:
    global _parsed
    if _parsed is None or _parsed[0] is not config:
        _parsed = (config, single_settings_of(config))
    return _parsed[1]
