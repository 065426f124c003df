"""Turns a problem into a record: `PairSolver` lets two models take turns, `SingleSolver` asks one alone.

A record without its verdict:

    {"turns": [{"role", "text", "tokens", ...}, ...], "text": the whole answer, "stop_reason": str,
     "tokens": {role: int}, "rethinks": int}

The role of a single model is "single". Its tokens include the opening tag it was given.
"""

from collections.abc import Mapping
from typing import Any, Protocol

from longshort_reward.protocol import ANSWER_CLOSE, Role

from verl_longshort.base.files import Record
from verl_longshort.core.environment import Environment
from verl_longshort.core.role_view import Tokenizer
from verl_longshort.core.single_model import SingleMode, answer_alone
from verl_longshort.core.trajectory import Generate, Participant, run_trajectory
from verl_longshort.evaluation.settings import EvaluationSettings


class Solver(Protocol):
    """Solves one problem; `seed` decides the draws."""

    async def __call__(self, problem: str, *, seed: int) -> Record: ...


class PairSolver:
    """Long and short take turns in the environment, as in training."""

    def __init__(self, settings: EvaluationSettings, participants: Mapping[Role, Participant]) -> None:
        self._settings = settings
        self._participants = participants
        self._environment = Environment(settings.limits)

    async def __call__(self, problem: str, *, seed: int) -> Record:
        trajectory = await run_trajectory(
            problem,
            self._participants,
            self._environment,
            self._settings.prompts,
            _sampling(self._settings, seed),
        )
        return {**trajectory.to_record(), "text": trajectory.state.final_text}


class SingleSolver:
    """One model writes the whole answer, with the opening tag of the mode already written for it."""

    def __init__(self, settings: EvaluationSettings, tokenizer: Tokenizer, generate: Generate) -> None:
        self._settings = settings
        self._tokenizer = tokenizer
        self._generate = generate

    async def __call__(self, problem: str, *, seed: int) -> Record:
        answer = await answer_alone(
            problem,
            tokenizer=self._tokenizer,
            generate=self._generate,
            mode=SingleMode(self._settings.mode.value),
            system_prompt=self._settings.system_prompt,
            token_budget=self._settings.limits.token_budget,
            request_id=f"{seed}-{problem}",
            sampling=_sampling(self._settings, seed),
        )
        return {
            "problem": problem,
            "turns": [{"role": "single", "text": answer.text, "tokens": answer.tokens}],
            "text": answer.text,
            "stop_reason": "answered" if ANSWER_CLOSE in answer.text else answer.finish_reason,
            "tokens": {"single": answer.tokens},
            "rethinks": 0,
        }


def _sampling(settings: EvaluationSettings, seed: int) -> dict[str, Any]:
    return {"temperature": settings.temperature, "top_p": settings.top_p, "seed": seed}
