"""Runs one joint trajectory of two models through the environment.

Training, evaluation and endpoints all go through `run_trajectory`. It needs of each model a tokenizer and one
asynchronous function, `Generate`; what stands behind that (an engine in this process, a server) is not its
business. A trajectory waits for nobody but its own two models, so many run at once without a barrier.
"""

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any, Protocol

from longshort_reward.protocol import ROLES, STOP_STRINGS, Role, RolePrompts

from verl_longshort.core.environment import Environment, State
from verl_longshort.core.role_view import Message, RoleView, Tokenizer, check_tokenizer, decode_turn, render_prompt
from verl_longshort.core.watching import Piece, TextStream, Watcher

FINISH_REASONS = ("stop", "length", "aborted")
_SET_HERE = ("stop", "max_tokens")


@dataclass(frozen=True, kw_only=True)
class Generation:
    """What a model generated in one turn."""

    token_ids: list[int] = field(default_factory=list)
    """Generated tokens, stop token included; empty where the model gave `text`."""
    logprobs: list[float] | None
    """Natural logarithm of each token's probability, or None when the engine was not asked."""
    finish_reason: str
    """"stop": stop string or EOS; "length": max_tokens reached; "aborted": given up by the engine."""
    extra: dict[str, Any] = field(default_factory=dict)
    """What the caller's engine wants to hand through, such as the version of its weights."""
    text: str | None = None
    """From an endpoint, which gives no token ids: the text, stop string included, ..."""
    text_tokens: int = 0
    """... and how many tokens it was, as the endpoint counted them."""

    def __post_init__(self) -> None:
        if self.finish_reason not in FINISH_REASONS:
            raise ValueError(f"finish_reason is {self.finish_reason!r}; give one of {', '.join(FINISH_REASONS)}")

    @property
    def tokens(self) -> int:
        """How many tokens were generated."""
        return len(self.token_ids) if self.text is None else self.text_tokens

    def decoded(self, tokenizer: Tokenizer) -> str:
        """The text."""
        return decode_turn(tokenizer, self.token_ids) if self.text is None else self.text


class Generate(Protocol):
    """One model: an engine in this process, a server of verl, or an endpoint.

    `request_id` is the same for all turns of one role in one trajectory, and each `prompt_ids` extends the
    one before, so an engine can keep its KV cache under that name. `sampling` has vLLM's names.
    """

    async def __call__(self, *, request_id: str, prompt_ids: list[int], sampling: dict[str, Any]) -> Generation: ...


class Stream(Protocol):
    """A `Generate` that gives what it generates to `on_piece` meanwhile, in the caller's event loop."""

    async def __call__(
        self, *, request_id: str, prompt_ids: list[int], sampling: dict[str, Any], on_piece: Callable[[Piece], None]
    ) -> Generation: ...


@dataclass(frozen=True, kw_only=True)
class Participant:
    """The model that plays a role. Raises UserError when its tokenizer cannot speak the protocol."""

    tokenizer: Tokenizer
    generate: Generate
    response_tokens: int | None = None
    """Most tokens of all turns of a trajectory, in its own tokens; None: any number."""
    context_tokens: int | None = None
    """Most tokens of prompt and turns; None: any number."""
    stream: Stream | None = None
    """Generates the same and tells of it meanwhile; None: a turn is there as a whole."""

    kept_prompts: int = 0
    """How many prompts are kept for further trajectories of the same problems, which need not be tokenised again."""
    _rendered: Callable[[str, str], list[int]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_tokenizer(self.tokenizer)
        object.__setattr__(self, "_rendered", lru_cache(self.kept_prompts)(partial(render_prompt, self.tokenizer)))

    def view(self, role: Role, prompts: RolePrompts, problem: str, history: Sequence[Message] = ()) -> RoleView:
        """An empty view of a trajectory, with the limit that this model has."""
        prompt_ids = None if history else self._rendered(prompts.for_role(role), problem)
        view = RoleView(self.tokenizer, role, prompts, problem, history, prompt_ids=prompt_ids)
        behind = None if self.context_tokens is None else self.context_tokens - len(view.prompt_ids)
        view.limit = min((limit for limit in (self.response_tokens, behind) if limit is not None), default=None)
        return view

    async def say(self, role: Role, watcher: Watcher | None, **request: Any) -> Generation:
        """A turn of the model, watched if anybody watches. `request`: see `Generate`."""
        if watcher is None or self.stream is None:
            return await self.generate(**request)
        text = TextStream(self.tokenizer)
        return await self.stream(**request, on_piece=lambda piece: watcher.turn_grows(role, text.add(piece)))


@dataclass(frozen=True, kw_only=True)
class Trajectory:
    """A trajectory that has ended."""

    state: State
    views: Mapping[Role, RoleView]
    request_ids: Mapping[Role, str]
    extras: Mapping[Role, list[dict[str, Any]]]
    """`Generation.extra` of each turn of a role, in order; empty for a role that never spoke."""
    turn_tokens: Sequence[int]
    """Generated tokens of each turn, both roles', in order."""

    def to_record(self) -> dict[str, Any]:
        """The trajectory as plain JSON values; token counts are of generated tokens."""
        turns = [
            {
                "role": str(turn.role),
                "text": turn.text,
                "tokens": tokens,
                "fault": None if turn.fault is None else str(turn.fault),
            }
            for turn, tokens in zip(self.state.turns, self.turn_tokens, strict=True)
        ]
        return {
            "problem": self.state.problem,
            "turns": turns,
            "stop_reason": str(self.state.stop_reason),
            "fault_role": None if self.state.fault_role is None else str(self.state.fault_role),
            "tokens": {str(role): self.state.tokens[role] for role in ROLES},
            "rethinks": self.state.rethinks,
        }


async def run_trajectory(
    problem: str,
    participants: Mapping[Role, Participant],
    environment: Environment,
    prompts: RolePrompts,
    sampling: Mapping[str, Any],
    *,
    views: Mapping[Role, RoleView] | None = None,
    first: Role = Role.LONG,
    watcher: Watcher | None = None,
) -> Trajectory:
    """Let the two participants solve `problem` together (paper, section 5).

    `sampling` is given to both engines with the role's stop strings and the turn's `max_tokens` added. Each
    own turn enters its role's view as the tokens that were generated (as its text, tokenised alone, where an endpoint
    gave text), and the partner's view as stripped text, faulty and aborted turns too, so that both views hold the whole
    trajectory. When the next speaker's view is full, the trajectory ends as TOKEN_BUDGET. Raises ValueError when a
    participant is missing or `sampling` sets what the environment decides; errors of an engine pass through.

    `views` are empty ones of the participants, which may hold a conversation before the problem, `first` is who begins,
    and `watcher` is told of everything meanwhile; training and evaluation use none of them.
    """
    _check_arguments(participants, sampling)
    views = views or {role: participants[role].view(role, prompts, problem) for role in ROLES}
    request_ids = {role: uuid.uuid4().hex for role in ROLES}
    extras: dict[Role, list[dict[str, Any]]] = {role: [] for role in ROLES}
    turn_tokens: list[int] = []
    state = environment.reset(problem, first)
    while (role := state.next_role) is not None:
        room = views[role].room
        if room == 0:
            if state.turns:
                state = environment.fill(state)
                break
            # the engine says that the prompt is too long
            room = 1
        if watcher is not None:
            watcher.turn_begins(role)
        generation = await participants[role].say(
            role,
            watcher,
            request_id=request_ids[role],
            prompt_ids=views[role].context_ids,
            sampling={
                **sampling,
                "stop": list(STOP_STRINGS[role]),
                "max_tokens": environment.turn_budget(state, room),
            },
        )
        text, count = generation.decoded(participants[role].tokenizer), generation.tokens
        if generation.finish_reason == "aborted":
            state = environment.abort(state, text, tokens=count)
        else:
            finished = generation.finish_reason == "stop"
            state = environment.step(state, text, tokens=count, finished=finished, room=room)
        said = state.turns[-1].text
        own = generation.token_ids
        if generation.text is not None:
            own = participants[role].tokenizer.encode(said, add_special_tokens=False)
        views[role].add_own(own, generation.logprobs)
        views[role.partner].add_partner(said)
        extras[role].append(generation.extra)
        turn_tokens.append(count)
        if watcher is not None:
            watcher.turn_ends(state.turns[-1], count)
    return Trajectory(state=state, views=views, request_ids=request_ids, extras=extras, turn_tokens=tuple(turn_tokens))


def _check_arguments(participants: Mapping[Role, Participant], sampling: Mapping[str, Any]) -> None:
    missing = [str(role) for role in ROLES if role not in participants]
    if missing:
        raise ValueError(f"participants lacks {', '.join(missing)}; give one Participant for each role")
    taken = [key for key in _SET_HERE if key in sampling]
    if taken:
        raise ValueError(f"sampling sets {', '.join(taken)}; leave that out, the protocol and the limits decide")
