"""Solvers whose models answer behind OpenAI-compatible servers (vLLM, SGLang ...).

A pair and the modes with an opening tag need prompts that the chat interface cannot express: they send token
ids to `/completions`. A single model in the mode plain is asked by `/chat/completions`. Tokens are what the
server's `usage` counts; without it nothing is evaluated, since tokens are half of the result.
"""

from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Any

from longshort_reward.protocol import ANSWER_CLOSE, STOP_STRINGS, THINK_CLOSE, THINK_OPEN, Role

from verl_longshort.base.errors import UnavailableError
from verl_longshort.base.files import Record
from verl_longshort.core.environment import Environment, State
from verl_longshort.core.role_view import Tokenizer, render_prompt
from verl_longshort.core.single_model import opening_ids
from verl_longshort.core.trajectory import state_record
from verl_longshort.evaluation.endpoint_settings import KEY
from verl_longshort.evaluation.settings import EvaluationSettings, Mode
from verl_longshort.llm.client import ChatSampling, RefusedError
from verl_longshort.llm.endpoint import EndpointClient
from verl_longshort.llm.server import Server

_SEEDS = 2**31
"""Some servers take 32 signed bits."""


@dataclass(frozen=True, kw_only=True)
class Completion:
    """What a server has continued a prompt with."""

    text: str
    """With the stop string."""
    tokens: int
    finished: bool
    """False: cut at the limit."""


class CompletionModel:
    """One model behind `/completions`."""

    def __init__(self, server: Server, model: str, tokenizer: Tokenizer, settings: EvaluationSettings) -> None:
        self.tokenizer = tokenizer
        self._server = server
        self._body = {"model": model, "temperature": settings.temperature, "top_p": settings.top_p}

    async def complete(self, prompt: list[int], *, stop: tuple[str, ...], max_tokens: int, seed: int) -> Completion:
        """The continuation of a prompt. Raises UnavailableError when the server does not give one."""
        body = {
            **self._body,
            "prompt": prompt,
            "stop": list(stop),
            "max_tokens": max_tokens,
            "seed": seed % _SEEDS,
            # Which of the two closing tags of the short role it was decides what comes next. vLLM's name;
            # servers that do not know it say what they stopped at.
            "include_stop_str_in_output": True,
        }
        try:
            completion: Completion = await self._server.post(
                "completions", body, lambda content: _completion(content, stop)
            )
        except RefusedError as error:
            raise UnavailableError(f"{self._server.base_url} refused a prompt: {error}") from error
        return completion


class EndpointPairSolver:
    """Long and short take turns, each behind its own server."""

    def __init__(self, settings: EvaluationSettings, models: Mapping[Role, CompletionModel]) -> None:
        self._settings = settings
        self._models = models
        self._environment = Environment(settings.limits)

    async def __call__(self, problem: str, *, seed: int) -> Record:
        state = self._environment.reset(problem)
        counts: list[int] = []
        while (role := state.next_role) is not None:
            completion = await self._models[role].complete(
                self._prompt(role, state),
                stop=STOP_STRINGS[role],
                max_tokens=self._environment.turn_budget(state),
                seed=seed,
            )
            counts.append(completion.tokens)
            state = self._environment.step(
                state, completion.text, tokens=completion.tokens, finished=completion.finished
            )
        return {**state_record(state, counts), "text": state.final_text}

    def _prompt(self, role: Role, state: State) -> list[int]:
        tokenizer = self._models[role].tokenizer
        prompt = render_prompt(tokenizer, self._settings.prompts.for_role(role), state.problem)
        # Turn by turn, as in training.
        turns = [tokenizer.encode(turn.text, add_special_tokens=False) for turn in state.turns]
        return [token for part in (prompt, *turns) for token in part]


class EndpointSingleSolver:
    """One model that begins with the opening tag of its mode."""

    def __init__(self, settings: EvaluationSettings, model: CompletionModel) -> None:
        self._settings = settings
        self._model = model

    async def __call__(self, problem: str, *, seed: int) -> Record:
        tokenizer, tag = self._model.tokenizer, self._settings.mode.opening
        prompt = render_prompt(tokenizer, self._settings.system_prompt, problem)
        opening = opening_ids(tokenizer, prompt, tag)
        completion = await self._model.complete(
            prompt + opening,
            stop=(ANSWER_CLOSE,),
            max_tokens=self._settings.limits.token_budget - len(opening),
            seed=seed,
        )
        return _single(problem, tag + completion.text, len(opening) + completion.tokens, completion.finished)


class ChatSolver:
    """One model that answers as it likes, through its server's own chat template."""

    def __init__(self, settings: EvaluationSettings, client: EndpointClient) -> None:
        self._client = client
        self._system = settings.system_prompt
        self._sampling = ChatSampling(
            temperature=settings.temperature,
            top_p=settings.top_p,
            max_tokens=settings.limits.token_budget,
        )

    async def __call__(self, problem: str, *, seed: int) -> Record:
        system = [{"role": "system", "content": self._system}] if self._system else []
        sampling = replace(self._sampling, seed=seed % _SEEDS)
        try:
            (reply,) = await self._client.ask([*system, {"role": "user", "content": problem}], sampling)
        except RefusedError as error:
            raise UnavailableError(f"the endpoint refused a problem: {error}") from error
        reasoning = f"{THINK_OPEN}\n{reply.reasoning}\n{THINK_CLOSE}\n\n" if reply.reasoning else ""
        return _single(problem, reasoning + reply.text, _counted(reply.tokens), reply.complete)


def open_solver(
    settings: EvaluationSettings, closing: AsyncExitStack
) -> EndpointPairSolver | EndpointSingleSolver | ChatSolver:
    """The solver of the mode; `closing` closes its connections, in the event loop that used them."""
    if settings.mode is Mode.PLAIN:
        client = EndpointClient(
            settings.endpoint.base_urls["single"], model=settings.models["single"], **_options(settings)
        )
        closing.push_async_callback(client.aclose)
        return ChatSolver(settings, client)
    models = {speaker: _open_model(settings, speaker, closing) for speaker in settings.mode.speakers}
    if settings.mode is Mode.PAIR:
        return EndpointPairSolver(settings, {Role(speaker): model for speaker, model in models.items()})
    return EndpointSingleSolver(settings, models["single"])


def _open_model(settings: EvaluationSettings, speaker: str, closing: AsyncExitStack) -> CompletionModel:
    from transformers import AutoTokenizer

    server = Server(settings.endpoint.base_urls[speaker], **_options(settings))
    closing.push_async_callback(server.aclose)
    tokenizer = AutoTokenizer.from_pretrained(settings.endpoint.tokenizers[speaker])
    return CompletionModel(server, settings.models[speaker], tokenizer, settings)


def _options(settings: EvaluationSettings) -> dict[str, Any]:
    endpoint = settings.endpoint
    return {
        "api_key": endpoint.api_key,
        "concurrency": settings.max_num_seqs,
        "timeout_s": endpoint.timeout_s,
        "attempts": endpoint.attempts,
        "key": KEY,
    }


def _completion(content: Any, stop: tuple[str, ...]) -> Completion:
    choice = content["choices"][0]
    text, reason = choice["text"], choice["finish_reason"]
    if reason == "stop" and not any(tag in text for tag in stop):
        text += _stopped_at(choice, stop)
    usage = content.get("usage") or {}
    return Completion(text=text, tokens=_counted(usage.get("completion_tokens")), finished=reason == "stop")


def _stopped_at(choice: Mapping[str, Any], stop: tuple[str, ...]) -> str:
    told = [choice[key] for key in ("stop_reason", "matched_stop") if key in choice]
    if not told:
        raise UnavailableError(
            "the endpoint does not say which stop string ended a turn; serve the model with vLLM or SGLang"
        )
    # Anything else is the end of text, which is no closing tag.
    return next((tag for tag in told if tag in stop), "")


def _counted(tokens: Any) -> int:
    if not isinstance(tokens, int):
        raise UnavailableError("the endpoint does not count tokens (usage.completion_tokens)")
    return tokens


def _single(problem: str, text: str, tokens: int, finished: bool) -> Record:
    return {
        "problem": problem,
        "turns": [{"role": "single", "text": text, "tokens": tokens}],
        "text": text,
        "stop_reason": "answered" if ANSWER_CLOSE in text else "stop" if finished else "length",
        "tokens": {"single": tokens},
        "rethinks": 0,
    }
