"""A pair that answers: what the HTTP server, the terminal chat and the page are built on.

    async with open_pair(settings) as pair:                      # settings: ServeSettings, config/serve.yaml
        messages = [{"role": "user", "content": "What is 2 + 2?"}]
        async for event in pair.answer(messages, AnswerOptions(seed=7)):
            ...                                                  # events: serve/events.py

* `open_pair` loads two model folders with an engine of ours, or connects to two endpoints (`endpoint.base_url`), which
  may be one server with two models or adapters.
* `PairService.answer` gives the events of one answer as they happen, `answers` those of several to the same messages,
  each time all that have happened meanwhile. Leaving the loop (or cancelling its task) ends the work of both engines:
  at once if the iterator is closed (`contextlib.aclosing`). A `ServeError` (`serve/errors.py`) may be raised before the
  first event or between two, with a message for whoever asked: RequestError, BusyError, EngineError or LateError.
* `serve/channels.py` makes reasoning and content of events, as the HTTP server shows them.
* Messages are `{"role": "system" | "user" | "assistant", "content": str}` and end with the user's;
  `serve/conversation.py` says what becomes of each.

The turn loop is `core.trajectory.run_trajectory`, as in `longshort eval`: the same problem, sampling and seed give the
same tokens.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from typing import Any

from longshort_reward.protocol import ROLES, Role

from verl_longshort.core.trajectory import Participant
from verl_longshort.engines.factory import open_engine
from verl_longshort.engines.spec import StreamingEngine
from verl_longshort.engines.tokenizers import check_chat, load_tokenizer
from verl_longshort.llm.endpoint import CompletionEndpoint
from verl_longshort.llm.server import Server
from verl_longshort.llm.settings import api_key
from verl_longshort.serve.service import AnswerOptions, PairService
from verl_longshort.serve.settings import ServeSettings

__all__ = ["AnswerOptions", "PairService", "open_pair"]


@asynccontextmanager
async def open_pair(settings: ServeSettings) -> AsyncIterator[PairService]:
    """The pair of the settings, loaded or connected to; closed at the end. Raises UserError."""
    tokenizers = {role: _checked_tokenizer(settings, role) for role in ROLES}
    async with AsyncExitStack() as closing:
        if settings.runs_here:
            participants = _in_process(settings, closing)
        else:
            participants = {role: _behind_endpoint(settings, role, tokenizers[role], closing) for role in ROLES}
        yield PairService(
            participants,
            limits=settings.limits,
            prompts=settings.prompts,
            template=settings.template,
            sampling={"temperature": settings.temperature, "top_p": settings.top_p},
            at_once=settings.max_num_seqs * len(ROLES),
            may_wait=settings.max_waiting,
            timeout_s=settings.request_timeout_s,
        )


def _checked_tokenizer(settings: ServeSettings, role: Role) -> Any:
    path, key = settings.tokenizer_path(role), f"longshort.models.{role}"
    tokenizer = load_tokenizer(
        path, key=key, trust_remote_code=settings.trust_remote_code, files_key="longshort.trust_remote_code"
    )
    prompt_key = f"longshort.environment.prompts.{role}"
    check_chat(tokenizer, path, key=key, system=settings.prompts.for_role(role), prompt_key=prompt_key)
    return tokenizer


def _in_process(settings: ServeSettings, closing: AsyncExitStack) -> dict[Role, Participant]:
    """An engine for each model: one that plays both roles is loaded once."""
    engines = closing.enter_context(ExitStack())
    paths = dict.fromkeys(settings.model_paths.values())
    opened = {
        path: open_engine(
            path,
            settings,
            max_num_seqs=settings.max_num_seqs,
            seed=0,
            engines=engines,
            engines_of_command=len(paths),
        )
        for path in paths
    }
    participants = {}
    for role, path in settings.model_paths.items():
        tokenizer, engine = opened[path]
        stream = engine.stream if isinstance(engine, StreamingEngine) else None
        participants[role] = Participant(
            tokenizer=tokenizer, generate=engine.generate, context_tokens=engine.max_model_len, stream=stream
        )
    return participants


def _behind_endpoint(settings: ServeSettings, role: Role, tokenizer: Any, closing: AsyncExitStack) -> Participant:
    url, key = settings.endpoint.base_url.of(role), "longshort.endpoint"
    assert url is not None, "settings have both addresses or none"
    server = Server(
        url,
        api_key=api_key(settings.endpoint.api_key_env),
        concurrency=settings.max_num_seqs,
        timeout_s=settings.endpoint.timeout_s,
        attempts=settings.endpoint.attempts,
        names=dict(settings.endpoint.request_names),
        key=key,
    )
    closing.push_async_callback(server.aclose)
    endpoint = CompletionEndpoint(server, settings.model_paths[role])
    return Participant(tokenizer=tokenizer, generate=endpoint.generate, stream=endpoint.stream)
