r"""One model that answers alone: the control of a pair, in training and evaluation. Knows no verl.

| mode | begins with | is | well formed when |
|---|---|---|---|
| `long_cot` | `<think>` | a chain of thought, an answer | it is `<think>..</think> <answer>..</answer>` |
| `direct` | `<answer>` | the answer at once | it is `<answer>..</answer>` |
| `joint` | what the model writes | a pair's whole trajectory | its turns are, and alternate up to the answer |
| `plain` | what the model likes | what the model is used to | it ends by itself and has a `\boxed{}` |

The opening tag is written for the model, so it is no token to learn from, but it counts as one of its tokens.

`joint` is the pair's text in one go: the same markup, the same tokens, judged as a pair is judged. A trajectory that
breaks the protocol somewhere has no answer, whatever it says behind that: a pair would have been stopped there. What a
pair hands over is to this model where it goes on; `</rethink>` counts as in a pair. Limits of turns are a pair's: one
model shares its budget among its turns as it likes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from longshort_reward import format_match
from longshort_reward.answer import last_boxed
from longshort_reward.compat import StrEnum
from longshort_reward.protocol import ANSWER_CLOSE, ANSWER_OPEN, THINK_OPEN, Closing, Role, parse_trajectory

from verl_longshort.core.environment import StopReason
from verl_longshort.core.role_view import Tokenizer, decode_turn, render_prompt
from verl_longshort.core.trajectory import Generate

_LOOK_BACK = 8  # tokens of the prompt in which the chat template may have written the opening tag


class SingleMode(StrEnum):
    """How a single model answers; the table in the module's docstring defines each."""

    LONG_COT = "long_cot"
    DIRECT = "direct"
    JOINT = "joint"
    PLAIN = "plain"

    @property
    def opening(self) -> str:
        """What the answer is made to begin with."""
        return {SingleMode.LONG_COT: THINK_OPEN, SingleMode.DIRECT: ANSWER_OPEN}.get(self, "")

    @property
    def parts(self) -> tuple[Role, ...]:
        """The kinds of turn that a well-formed answer consists of; none where that is plain text or not settled."""
        return {SingleMode.LONG_COT: (Role.LONG, Role.SHORT), SingleMode.DIRECT: (Role.SHORT,)}.get(self, ())


@dataclass(frozen=True, kw_only=True)
class SingleAnswer:
    """The whole answer of a model to one problem."""

    prompt_ids: list[int]
    """Chat prompt, and the opening tag where it was not there already."""
    token_ids: list[int]
    """Generated tokens, stop token included."""
    logprobs: list[float] | None
    text: str
    """The answer with its opening tag."""
    tokens: int
    """Generated tokens and those of the opening tag."""
    stop_reason: StopReason
    """ANSWERED; TOKEN_BUDGET: truncated; MALFORMED: ended without `</answer>`, `joint`: no trajectory; ABORTED."""
    finish_reason: str
    """As the engine tells it: stop, length or aborted."""
    extra: Mapping[str, Any]
    """What the engine hands through."""

    @property
    def answered(self) -> bool:
        """Whether the model came to its end."""
        return self.stop_reason is StopReason.ANSWERED

    @property
    def rethinks(self) -> int:
        """How often the model asked itself for another long thought, in well-formed turns only."""
        return rethinks_in(self.text)


async def solve_alone(
    problem: str,
    *,
    tokenizer: Tokenizer,
    generate: Generate,
    mode: SingleMode,
    system_prompt: str,
    token_budget: int,
    request_id: str,
    sampling: Mapping[str, Any],
) -> SingleAnswer:
    """Let one model solve `problem` with at most `token_budget` tokens, the opening tag included."""
    prompt = render_prompt(tokenizer, system_prompt, problem)
    opening = opening_ids(tokenizer, prompt, mode.opening)
    generation = await generate(
        request_id=request_id,
        prompt_ids=prompt + opening,
        sampling={**sampling, "stop": [ANSWER_CLOSE], "max_tokens": token_budget - len(opening)},
    )
    if generation.text is not None:
        text = mode.opening + generation.text
    elif opening:
        text = decode_turn(tokenizer, opening + generation.token_ids)
    else:
        text = mode.opening + decode_turn(tokenizer, generation.token_ids)
    return SingleAnswer(
        prompt_ids=prompt + opening,
        token_ids=generation.token_ids,
        logprobs=generation.logprobs,
        text=text,
        tokens=len(opening) + generation.tokens,
        stop_reason=_stop_reason(mode, text, generation.finish_reason),
        finish_reason=generation.finish_reason,
        extra=generation.extra,
    )


def prompt_of(tokenizer: Tokenizer, mode: SingleMode, system_prompt: str, problem: str) -> list[int]:
    """What `solve_alone` asks the engine to continue."""
    prompt = render_prompt(tokenizer, system_prompt, problem)
    return prompt + opening_ids(tokenizer, prompt, mode.opening)


def opening_ids(tokenizer: Tokenizer, prompt: list[int], tag: str) -> list[int]:
    """Tokens of the tag to put behind `prompt`; none when the chat template has written it itself."""
    if not tag or tokenizer.decode(prompt[-_LOOK_BACK:], skip_special_tokens=False).rstrip().endswith(tag):
        return []
    return tokenizer.encode(tag, add_special_tokens=False)


def rethinks_in(text: str) -> int:
    """Well-formed turns that end with `</rethink>` in an answer that one model wrote."""
    return sum(turn.ok and turn.closing is Closing.RETHINK for turn in parse_trajectory(text))


def well_formed(mode: SingleMode, answer: SingleAnswer) -> bool:
    """Whether the answer has the form of its mode; what FM is for a single model."""
    if mode is SingleMode.JOINT:
        return _is_trajectory(answer.text)
    if not mode.parts:
        return answer.answered and last_boxed(answer.text) is not None
    turns = parse_trajectory(answer.text)
    in_order = tuple(turn.role for turn in turns) == mode.parts
    return in_order and all(turn.ok for turn in turns) and turns[-1].closing is Closing.ANSWER


def _stop_reason(mode: SingleMode, text: str, finish_reason: str) -> StopReason:
    if finish_reason == "aborted":
        return StopReason.ABORTED
    if ANSWER_CLOSE in text and mode is SingleMode.JOINT:
        return StopReason.ANSWERED if _is_trajectory(text) else StopReason.MALFORMED
    if ANSWER_CLOSE in text or (finish_reason == "stop" and mode is SingleMode.PLAIN):
        return StopReason.ANSWERED
    return StopReason.TOKEN_BUDGET if finish_reason == "length" else StopReason.MALFORMED


def _is_trajectory(text: str) -> bool:
    return format_match(parse_trajectory(text)) == 1.0
