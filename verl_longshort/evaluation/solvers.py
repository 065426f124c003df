"""Turns a problem into a record: `PairSolver` lets two models take turns, `SingleSolver` asks one alone, `ChatSolver`
asks one through the chat interface of its server.

A record without its verdict:

    {"turns": [{"role", "text", "tokens", ...}, ...], "text": the whole answer, "stop_reason": str,
     "tokens": {role: int}, "rethinks": int}

The role of a single model is "single". Its tokens include the opening tag it was given. What it writes is one turn,
also where that is a whole trajectory (mode `joint`), of which `rethinks` are counted.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from longshort_reward.protocol import ANSWER_CLOSE, THINK_CLOSE, THINK_OPEN, Role

from verl_longshort.base.files import Record
from verl_longshort.core.environment import Environment
from verl_longshort.core.role_view import Tokenizer
from verl_longshort.core.single_model import SingleMode, solve_alone
from verl_longshort.core.trajectory import Generate, Participant, run_trajectory
from verl_longshort.evaluation.settings import EvaluationSettings, Mode
from verl_longshort.llm.client import ChatSampling
from verl_longshort.llm.endpoint import SEEDS, EndpointClient, counted


class Solver(Protocol):
    """Solves one problem; `seed` decides what is sampled.

    Raises RefusedError or TooLongError for a problem that its model can never answer.
    """

    async def __call__(self, problem: str, *, seed: int) -> Record: ...


@dataclass(frozen=True)
class PairSolver:
    """Long and short take turns in the environment, as in training."""

    settings: EvaluationSettings
    participants: Mapping[Role, Participant]

    async def __call__(self, problem: str, *, seed: int) -> Record:
        trajectory = await run_trajectory(
            problem,
            self.participants,
            Environment(self.settings.limits),
            self.settings.prompts,
            _sampling(self.settings, seed),
        )
        return {**trajectory.to_record(), "text": trajectory.state.final_text}


@dataclass(frozen=True)
class SingleSolver:
    """One model writes the whole answer, with the opening tag of the mode already written for it."""

    settings: EvaluationSettings
    tokenizer: Tokenizer
    generate: Generate

    async def __call__(self, problem: str, *, seed: int) -> Record:
        answer = await solve_alone(
            problem,
            tokenizer=self.tokenizer,
            generate=self.generate,
            mode=SingleMode(self.settings.mode.value),
            system_prompt=self.settings.system_prompt,
            token_budget=self.settings.limits.token_budget,
            request_id=f"{seed}-{problem}",
            sampling=_sampling(self.settings, seed),
        )
        record = _single_record(problem, answer.text, answer.tokens, answer.finish_reason)
        if self.settings.mode is Mode.JOINT:
            # an answer tag in a text that is no trajectory is no answer
            return {**record, "stop_reason": str(answer.stop_reason), "rethinks": answer.rethinks}
        return record


def _sampling(settings: EvaluationSettings, seed: int) -> dict[str, Any]:
    return {"temperature": settings.temperature, "top_p": settings.top_p, "seed": seed}


@dataclass(frozen=True)
class ChatSolver:
    """One model that answers as it likes, through its server's own chat template."""

    settings: EvaluationSettings
    client: EndpointClient

    async def __call__(self, problem: str, *, seed: int) -> Record:
        prompt = self.settings.system_prompt
        system = [{"role": "system", "content": prompt}] if prompt else []
        sampling = ChatSampling(
            temperature=self.settings.temperature,
            top_p=self.settings.top_p,
            max_tokens=self.settings.limits.token_budget,
            seed=seed % SEEDS,
        )
        (reply,) = await self.client.ask([*system, {"role": "user", "content": problem}], sampling)
        reasoning = f"{THINK_OPEN}\n{reply.reasoning}\n{THINK_CLOSE}\n\n" if reply.reasoning else ""
        return _single_record(problem, reasoning + reply.text, counted(reply.tokens), reply.finish_reason)


def _single_record(problem: str, text: str, tokens: int, finish_reason: str) -> Record:
    return {
        "problem": problem,
        "turns": [{"role": "single", "text": text, "tokens": tokens}],
        "text": text,
        "stop_reason": "answered" if ANSWER_CLOSE in text else finish_reason,
        "tokens": {"single": tokens},
        "rethinks": 0,
    }
