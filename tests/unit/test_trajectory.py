"""Joint trajectories with scripted models and real tokenizers of different kinds."""

import asyncio
import itertools
import json
import pickle
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from helpers.tiny_tokenizers import byte_level, normalising, word_level
from hypothesis import given
from hypothesis import strategies as st
from longshort_reward.errors import UserError
from longshort_reward.protocol import DEFAULT_PROMPTS, ROLES, STOP_STRINGS, Role, RolePrompts, parse_trajectory
from transformers import PreTrainedTokenizerFast

from verl_longshort.core.environment import Environment, Limits, StopReason
from verl_longshort.core.role_view import decode_turn
from verl_longshort.core.trajectory import Generation, Participant, Trajectory, run_trajectory

LONG, SHORT = Role.LONG, Role.SHORT
NO_PROMPTS = RolePrompts(long="", short="")
THOUGHT = "<think> so 1 < 2 </think>"
ASK = "<answer> x is hard </rethink>"
ANSWER = "<answer> \\boxed{ 4 } </answer>"
LIMITS = Limits(max_turns=8, long_turn_tokens=200, short_turn_tokens=100, token_budget=2000)
PAIRS = list(itertools.product((byte_level, normalising, word_level), repeat=2))
WATCHDOG_S = 60.0

Script = Sequence[str | Generation]


class Scripted:
    """Plays one turn of a script per call and keeps what it was asked."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, script: Script, pause: Callable[[], Awaitable[Any]]):
        self.tokenizer, self.script, self.pause = tokenizer, list(script), pause
        self.calls: list[dict[str, Any]] = []

    async def __call__(self, *, request_id: str, prompt_ids: list[int], sampling: dict[str, Any]) -> Generation:
        self.calls.append({"request_id": request_id, "prompt_ids": prompt_ids, "sampling": sampling})
        await self.pause()
        turn = self.script[len(self.calls) - 1]
        return turn if isinstance(turn, Generation) else generation(self.tokenizer, turn, version=len(self.calls))


async def no_pause() -> None:
    await asyncio.sleep(0)


def generation(tokenizer: PreTrainedTokenizerFast, text: str, finish: str = "stop", **extra: Any) -> Generation:
    ids = tokenizer.encode(text, add_special_tokens=False)
    if finish == "stop":
        ids.append(tokenizer.eos_token_id)
    logprobs = [-0.25 * (index + 1) for index in range(len(ids))]
    return Generation(token_ids=ids, logprobs=logprobs, finish_reason=finish, extra=extra)


def pair(
    long: Script,
    short: Script,
    tokenizers: tuple[Callable[[], PreTrainedTokenizerFast], ...] = (byte_level, normalising),
    pause: Callable[[], Awaitable[Any]] = no_pause,
) -> dict[Role, Scripted]:
    return {
        role: Scripted(build(), script, pause)
        for role, build, script in zip(ROLES, tokenizers, (long, short), strict=True)
    }


async def run(
    models: dict[Role, Scripted],
    problem: str = "1 + 3 =",
    sampling: dict[str, Any] | None = None,
    limits: Limits = LIMITS,
    prompts: RolePrompts = NO_PROMPTS,
) -> Trajectory:
    participants = {role: Participant(tokenizer=model.tokenizer, generate=model) for role, model in models.items()}
    return await run_trajectory(problem, participants, Environment(limits), prompts, sampling or {})


def play(models: dict[Role, Scripted], **arguments: Any) -> Trajectory:
    return asyncio.run(asyncio.wait_for(run(models, **arguments), WATCHDOG_S))


def squeezed(text: str) -> str:
    return "".join(text.split())


def test_two_models_solve_a_problem() -> None:
    models = pair([THOUGHT, THOUGHT], [ASK, ANSWER])
    trajectory = play(models, sampling={"temperature": 0.7}, prompts=DEFAULT_PROMPTS)
    state = trajectory.state
    assert state.stop_reason is StopReason.ANSWERED
    assert state.final_text == THOUGHT + ASK + THOUGHT + ANSWER
    for role in ROLES:
        ids = trajectory.views[role].response_ids
        shown = models[role].tokenizer.decode(ids, skip_special_tokens=True)
        assert shown == state.final_text
        assert tuple(parse_trajectory(shown)) == state.turns
        assert state.tokens[role] == sum(trajectory.views[role].response_mask)


def test_what_an_engine_is_asked() -> None:
    models = pair([THOUGHT, THOUGHT], [ASK, ANSWER])
    limits = Limits(max_turns=8, long_turn_tokens=60, short_turn_tokens=50, token_budget=200)
    trajectory = play(models, sampling={"temperature": 0.7, "top_p": 0.9, "logprobs": True}, limits=limits)
    left = limits.token_budget
    for number in range(4):
        role, call = ROLES[number % 2], models[ROLES[number % 2]].calls[number // 2]
        assert call["request_id"] == trajectory.request_ids[role]
        assert call["sampling"] == {
            "temperature": 0.7,
            "top_p": 0.9,
            "logprobs": True,
            "stop": list(STOP_STRINGS[role]),
            "max_tokens": min(limits.turn_tokens(role), left),
        }
        left -= len(trajectory.views[role].own_turns[number // 2])
    assert len(set(trajectory.request_ids.values())) == 2


@pytest.mark.parametrize("tokenizers", PAIRS)
def test_tokens_in_are_tokens_out_for_any_pair_of_tokenizers(tokenizers: tuple[Any, Any]) -> None:
    models = pair([THOUGHT, THOUGHT], [ASK, ANSWER], tokenizers)
    trajectory = play(models)
    assert trajectory.state.stop_reason is StopReason.ANSWERED
    for role, model in models.items():
        view = trajectory.views[role]
        expected = [generation(model.tokenizer, str(text)) for text in model.script]
        assert view.own_turns == [turn.token_ids for turn in expected]
        assert view.response_logprobs is not None
        own = zip(view.response_mask, view.response_logprobs, strict=True)
        assert [value for mask, value in own if mask] == [value for turn in expected for value in turn.logprobs or []]
        first, second = (call["prompt_ids"] for call in model.calls)
        assert second[: len(first)] == first
        assert view.context_ids[: len(second)] == second
        assert squeezed(decode_turn(model.tokenizer, view.response_ids)) == squeezed(trajectory.state.final_text)


def test_the_partner_reads_the_stripped_turn() -> None:
    models = pair([f"\n {THOUGHT} \n"], [ANSWER])
    trajectory = play(models)
    short = trajectory.views[SHORT]
    read = models[SHORT].calls[0]["prompt_ids"][len(short.prompt_ids) :]
    assert models[SHORT].tokenizer.decode(read) == THOUGHT
    assert models[LONG].tokenizer.decode(trajectory.views[LONG].own_turns[0]) == f"\n {THOUGHT} \n<|im_end|>"


@pytest.mark.parametrize(
    ("long", "finish", "reason", "fault_role"),
    [
        ("<think> so", "stop", StopReason.MALFORMED, LONG),
        ("<think> so", "length", StopReason.TURN_CUT, LONG),
        ("<think> so", "aborted", StopReason.ABORTED, None),
        ("", "stop", StopReason.EMPTY_TURN, LONG),
        ("", "aborted", StopReason.ABORTED, None),
        (THOUGHT, "aborted", StopReason.ABORTED, None),
        (f"{THOUGHT} <", "stop", StopReason.MALFORMED, LONG),
    ],
)
def test_a_bad_turn_ends_the_trajectory_and_stays_in_both_views(
    long: str, finish: str, reason: StopReason, fault_role: Role | None
) -> None:
    models = pair([generation(byte_level(), long, finish)], [])
    trajectory = play(models)
    assert (trajectory.state.stop_reason, trajectory.state.fault_role) == (reason, fault_role)
    assert trajectory.state.final_text == long
    for role in ROLES:
        assert decode_turn(models[role].tokenizer, trajectory.views[role].response_ids) == long
    assert set(trajectory.views[SHORT].response_mask) <= {0}


def test_the_budget_is_counted_over_both_roles() -> None:
    size = len(generation(byte_level(), THOUGHT).token_ids)
    limits = Limits(max_turns=8, long_turn_tokens=200, short_turn_tokens=100, token_budget=size + 3)
    cut = generation(byte_level(), "<answer> x is hard", "length")
    cut = Generation(token_ids=cut.token_ids[:3], logprobs=None, finish_reason="length")
    models = pair([THOUGHT], [cut], (byte_level, byte_level))
    trajectory = play(models, limits=limits)
    assert models[SHORT].calls[0]["sampling"]["max_tokens"] == 3
    assert (trajectory.state.stop_reason, trajectory.state.fault_role) == (StopReason.TOKEN_BUDGET, None)


def test_an_engine_that_oversteps_max_tokens_is_an_error() -> None:
    limits = Limits(max_turns=8, long_turn_tokens=2, short_turn_tokens=100, token_budget=200)
    with pytest.raises(ValueError, match="give the engine turn_budget"):
        play(pair([THOUGHT], []), limits=limits)


def test_extras_are_kept_by_turn() -> None:
    trajectory = play(pair([THOUGHT, THOUGHT], [ASK, ANSWER]))
    assert trajectory.extras[LONG] == [{"version": 1}, {"version": 2}]
    assert trajectory.extras[SHORT] == [{"version": 1}, {"version": 2}]
    silent = play(pair(["no tags"], []))
    assert silent.extras[SHORT] == []


def test_the_record_is_plain_json() -> None:
    trajectory = play(pair([THOUGHT], ["<answer> ∞ < 4"]))
    record = trajectory.to_record()
    assert json.loads(json.dumps(record)) == record
    counts = [len(trajectory.views[role].own_turns[0]) for role in ROLES]
    assert record == {
        "problem": "1 + 3 =",
        "turns": [
            {"role": "long", "text": THOUGHT, "tokens": counts[0], "fault": None},
            {"role": "short", "text": "<answer> ∞ < 4", "tokens": counts[1], "fault": "no_closing"},
        ],
        "stop_reason": "malformed",
        "fault_role": "short",
        "tokens": {"long": counts[0], "short": counts[1]},
        "rethinks": 0,
    }
    assert all(type(turn["role"]) is str for turn in record["turns"])


def test_a_trajectory_travels_between_processes() -> None:
    trajectory = play(pair([THOUGHT], [ANSWER]))
    back = pickle.loads(pickle.dumps(trajectory))
    assert back.to_record() == trajectory.to_record()
    assert back.views[LONG].context_ids == trajectory.views[LONG].context_ids


def test_many_trajectories_run_without_a_barrier() -> None:
    """One trajectory stays in its first turn until all others have ended."""

    async def everybody() -> list[Trajectory]:
        others_done = asyncio.Event()
        rng = random.Random(0)
        slow = asyncio.create_task(run(pair([THOUGHT], [ANSWER], pause=others_done.wait), problem="slow"))
        others = await asyncio.gather(
            *(
                run(
                    pair(
                        [THOUGHT] * 3,
                        [ASK] * turns + [ANSWER],
                        pause=lambda: asyncio.sleep(rng.random() / 100),
                    ),
                    problem=str(turns),
                )
                for turns in (0, 1, 2) * 40
            )
        )
        assert not slow.done()
        others_done.set()
        return [*others, await slow]

    *others, slow = asyncio.run(asyncio.wait_for(everybody(), WATCHDOG_S))
    assert slow.state.stop_reason is StopReason.ANSWERED
    assert all(trajectory.state.rethinks == int(trajectory.state.problem) for trajectory in others)
    ids = [request_id for trajectory in others for request_id in trajectory.request_ids.values()]
    assert len(set(ids)) == 2 * len(others)


def test_an_engines_error_passes_through() -> None:
    async def broken() -> None:
        raise ConnectionError("server is gone")

    with pytest.raises(ConnectionError, match="server is gone"):
        play(pair([THOUGHT], [], pause=broken))


@pytest.mark.parametrize("key", ["stop", "max_tokens"])
def test_sampling_may_not_decide_what_the_environment_decides(key: str) -> None:
    with pytest.raises(ValueError, match=f"sampling sets {key}; leave that out"):
        play(pair([THOUGHT], [ANSWER]), sampling={key: 1})


def test_both_participants_are_needed() -> None:
    models = pair([THOUGHT], [ANSWER])
    with pytest.raises(ValueError, match="participants lacks short"):
        play({LONG: models[LONG]})


def test_a_finish_reason_must_be_known() -> None:
    with pytest.raises(ValueError, match=r"finish_reason is 'completed'; give one of stop, length, aborted"):
        Generation(token_ids=[1], logprobs=None, finish_reason="completed")


def test_a_group_renders_its_prompt_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer, rendered = byte_level(), []
    render = tokenizer.apply_chat_template
    unused = Scripted(tokenizer, [], no_pause)
    participant = Participant(tokenizer=tokenizer, generate=unused, kept_prompts=1)
    other = Participant(tokenizer=tokenizer, generate=unused)
    monkeypatch.setattr(
        tokenizer, "apply_chat_template", lambda chat, **keys: rendered.append(chat[-1]) or render(chat, **keys)
    )
    first, second = (participant.view(LONG, NO_PROMPTS, "1 + 2") for _ in range(2))
    first.add_own([1, 2], None)
    assert len(rendered) == 1
    assert second.context_ids == second.prompt_ids == other.view(LONG, NO_PROMPTS, "1 + 2").prompt_ids
    history = [{"role": "user", "content": "0"}, {"role": "assistant", "content": "1"}]
    assert participant.view(LONG, NO_PROMPTS, "1 + 2", history).prompt_ids != second.prompt_ids
    participant.view(LONG, NO_PROMPTS, "2 + 2")
    participant.view(LONG, NO_PROMPTS, "1 + 2")
    assert len(rendered) == 5


def test_a_participant_whose_template_writes_tags_is_refused() -> None:
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=byte_level().backend_tokenizer, chat_template="{{ messages[0]['content'] }}<think>"
    )
    with pytest.raises(UserError, match="chat template writes <think>"):
        Participant(tokenizer=tokenizer, generate=Scripted(tokenizer, [], no_pause))


@given(st.data())
def test_any_tokens_make_a_consistent_trajectory(data: st.DataObject) -> None:
    """Models that write tags, words and noise: both views agree with the state, whatever happens."""
    tokenizers = data.draw(st.sampled_from(PAIRS))
    turns = st.sampled_from([THOUGHT, ASK, ANSWER]) | st.text("<>/abthink \n∞é", max_size=12)
    finishes = st.sampled_from(["stop", "stop", "stop", "length", "aborted"])

    def script(build: Callable[[], PreTrainedTokenizerFast], usual: list[str]) -> Script:
        drawn = data.draw(st.lists(st.tuples(st.sampled_from(usual) | turns, finishes), min_size=4, max_size=4))
        return [generation(build(), text, finish) for text, finish in drawn]

    models = pair(script(tokenizers[0], [THOUGHT]), script(tokenizers[1], [ASK, ANSWER]), tokenizers)
    trajectory = play(models)
    assert trajectory.state.done
    for role, model in models.items():
        view = trajectory.views[role]
        spoken = [turn for turn in trajectory.state.turns if turn.role is role]
        assert len(view.own_turns) == len(spoken) == len(model.calls)
        for ids, turn in zip(view.own_turns, spoken, strict=True):
            assert decode_turn(model.tokenizer, ids).strip() == turn.text
        assert sum(view.response_mask) == trajectory.state.tokens[role]
    json.dumps(trajectory.to_record())


def test_a_view_that_fills_up_ends_the_trajectory() -> None:
    """One tokenizer needs many more tokens for the partner's words than the partner did."""
    models = pair([THOUGHT, THOUGHT], [ASK, ANSWER], (word_level, byte_level))
    said = len(generation(models[SHORT].tokenizer, THOUGHT).token_ids)
    for limit in range(1, 200):
        models = pair([THOUGHT, THOUGHT], [ASK, ANSWER], (word_level, byte_level))
        limits = {LONG: None, SHORT: limit}
        trajectory = play_limited(models, limits)
        view = trajectory.views[SHORT]
        assert len(view.response_ids) <= limit
        assert len(view.response_ids) == len(view.response_mask) == len(view.response_logprobs or [])
        assert sum(view.response_mask) == trajectory.state.tokens[SHORT]
        for call in models[SHORT].calls:
            assert len(call["prompt_ids"]) - len(view.prompt_ids) + call["sampling"]["max_tokens"] <= limit
        if limit < said:
            assert (trajectory.state.stop_reason, trajectory.state.fault_role) == (StopReason.TOKEN_BUDGET, None)
            assert [turn.role for turn in trajectory.state.turns] == [LONG]
    assert trajectory.state.stop_reason is StopReason.ANSWERED


def test_a_turn_cut_at_the_end_of_the_row_is_nobodys_fault() -> None:
    cut = Generation(token_ids=[5, 6], logprobs=[-1.0, -1.0], finish_reason="length")
    models = pair([cut], [], (byte_level, byte_level))
    trajectory = play_limited(models, {LONG: 2, SHORT: None})
    assert models[LONG].calls[0]["sampling"]["max_tokens"] == 2
    assert (trajectory.state.stop_reason, trajectory.state.fault_role) == (StopReason.TOKEN_BUDGET, None)


def test_an_answer_counts_though_the_partners_row_has_no_room_for_it() -> None:
    models = pair([THOUGHT], [ANSWER], (byte_level, byte_level))
    size = len(generation(byte_level(), THOUGHT).token_ids)
    trajectory = play_limited(models, {LONG: size + 3, SHORT: None})
    assert trajectory.state.stop_reason is StopReason.ANSWERED
    assert len(trajectory.views[LONG].response_ids) == size + 3


def test_the_context_of_a_model_counts_its_prompt() -> None:
    models = pair([THOUGHT], [ANSWER])
    participants = {
        role: Participant(tokenizer=model.tokenizer, generate=obedient(model), context_tokens=40)
        for role, model in models.items()
    }
    view = participants[LONG].view(LONG, NO_PROMPTS, "1 + 3 =")
    assert view.limit == 40 - len(view.prompt_ids)
    # a prompt that fills it alone is the engine's to refuse
    asyncio.run(run_trajectory("1 + 3 =", participants, Environment(LIMITS), NO_PROMPTS, {}))
    assert models[LONG].calls[0]["sampling"]["max_tokens"] == view.limit


def obedient(model: Scripted) -> Any:
    """Cuts a scripted turn at `max_tokens`, as an engine does."""

    async def generate(*, sampling: dict[str, Any], **request: Any) -> Generation:
        said = await model(sampling=sampling, **request)
        most = sampling["max_tokens"]
        if len(said.token_ids) <= most:
            return said
        return Generation(token_ids=said.token_ids[:most], logprobs=said.logprobs[:most], finish_reason="length")

    return generate


def play_limited(models: dict[Role, Scripted], limits: dict[Role, int | None]) -> Trajectory:
    participants = {
        role: Participant(tokenizer=model.tokenizer, generate=obedient(model), response_tokens=limits[role])
        for role, model in models.items()
    }
    return asyncio.run(run_trajectory("1 + 3 =", participants, Environment(LIMITS), NO_PROMPTS, {}))
