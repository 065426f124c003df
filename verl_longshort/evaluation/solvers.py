"""Turns a problem into a record: `PairSolver` lets two models take turns, `SingleSolver` asks one alone.

A record without its verdict:

    {"turns": [{"role", "text", "tokens", ...}, ...], "text": the whole answer, "stop_reason": str,
     "tokens": {role: int}, "rethinks": int}

The role of a single model is "single". Its tokens include the opening tag it was given.
"""

from collections.abc import Mapping
from typing import Any, Protocol

from verl_longshort.environment import Environment
from verl_longshort.evaluation.settings import EvaluationSettings
from verl_longshort.inputs import Record
from verl_longshort.protocol import ANSWER_CLOSE, Role
from verl_longshort.trajectory import Generate, Participant, run_trajectory
from verl_longshort.view import Tokenizer, decode_turn, render_prompt


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
        prompt = render_prompt(self._tokenizer, self._settings.system_prompt, problem)
        opening = self._opening(prompt)
        generation = await self._generate(
            request_id=f"{seed}-{problem}",
            prompt_ids=prompt + opening,
            sampling={
                **_sampling(self._settings, seed),
                "stop": [ANSWER_CLOSE],
                "max_tokens": self._settings.limits.token_budget - len(opening),
            },
        )
        text = decode_turn(self._tokenizer, opening + generation.token_ids)
        text = text if opening else self._settings.mode.opening + text
        tokens = len(opening) + len(generation.token_ids)
        return {
            "problem": problem,
            "turns": [{"role": "single", "text": text, "tokens": tokens}],
            "text": text,
            "stop_reason": "answered" if ANSWER_CLOSE in text else generation.finish_reason,
            "tokens": {"single": tokens},
            "rethinks": 0,
        }

    def _opening(self, prompt: list[int]) -> list[int]:
        tag = self._settings.mode.opening
        # The chat template of a reasoning model may write the tag itself.
        if not tag or self._tokenizer.decode(prompt[-8:], skip_special_tokens=False).rstrip().endswith(tag):
            return []
        return self._tokenizer.encode(tag, add_special_tokens=False)


def _sampling(settings: EvaluationSettings, seed: int) -> dict[str, Any]:
    return {"temperature": settings.temperature, "top_p": settings.top_p, "seed": seed}
