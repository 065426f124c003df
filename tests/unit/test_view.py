"""One trajectory as token ids, with real tokenizers of three kinds."""

import json
import re
import unicodedata
from collections.abc import Callable
from typing import Any

import pytest
from helpers.tiny_tokenizers import CHAT_ML, WORDS, byte_level, normalising, word_level
from hypothesis import given
from hypothesis import strategies as st
from longshort_reward.errors import UserError
from longshort_reward.protocol import DEFAULT_PROMPTS, TAGS, Role, RolePrompts
from tokenizers import AddedToken
from transformers import PreTrainedTokenizerFast

from verl_longshort.core.role_view import RoleView, check_tokenizer, decode_turn, render_prompt

Build = Callable[[], PreTrainedTokenizerFast]
BUILDERS: tuple[Build, ...] = (byte_level, normalising, word_level)
NO_PROMPTS = RolePrompts(long="", short="")

builders = st.sampled_from(BUILDERS)
texts = st.lists(
    st.sampled_from([*TAGS, "a < b", "\\boxed{27}", "x^2 ≤ ∞", "e\u0301", " ", "\n"]) | st.text(max_size=6)
)


def as_shown(build: Build, text: str) -> str:
    """What the tokenizer keeps of a text, said without it."""
    if build is byte_level:
        return text
    if build is normalising:
        return unicodedata.normalize("NFC", text)
    # Python also splits at the separators U+001C to U+001F, which Unicode does not call white space.
    words = re.split(r"[^\S\x1c-\x1f]+", text)
    return " ".join(word if word in WORDS else "<unk>" for word in words if word)


@st.composite
def moves(draw: st.DrawFn, vocabulary: int) -> list[tuple[str, Any]]:
    """Turns in any order: ("own", token ids) with special ones among them, or ("partner", text)."""
    own = st.tuples(st.just("own"), st.lists(st.integers(0, vocabulary - 1), max_size=12))
    return draw(st.lists(own | st.tuples(st.just("partner"), texts.map("".join)), max_size=7))


@given(builders, st.sampled_from(list(Role)), st.booleans(), st.data())
def test_invariants_of_a_view(build: Build, role: Role, with_logprobs: bool, data: st.DataObject) -> None:
    tokenizer = build()
    view = RoleView(tokenizer, role, DEFAULT_PROMPTS, "How much is 12 + 15?")
    own_turns, spoken, logprobs = [], [], []
    for kind, content in data.draw(moves(len(tokenizer))):
        before = view.context_ids
        if kind == "own":
            given_logprobs = [-0.5 - index for index in range(len(content))]
            view.add_own(content, given_logprobs if with_logprobs else None)
            own_turns.append(content)
            logprobs.extend(given_logprobs)
            added = content
        else:
            view.add_partner(content)
            added = view.context_ids[len(before) :]
            shown = tokenizer.decode(added, skip_special_tokens=False, clean_up_tokenization_spaces=False)
            assert shown == as_shown(build, content)
        spoken.append((kind, added))
        assert view.context_ids == before + added
    check_alignment(view, own_turns, spoken, logprobs if with_logprobs or not own_turns else None)


def check_alignment(
    view: RoleView,
    own_turns: list[list[int]],
    spoken: list[tuple[str, list[int]]],
    logprobs: list[float] | None,
) -> None:
    ids, mask = view.response_ids, view.response_mask
    assert view.own_turns == own_turns
    assert view.context_ids == view.prompt_ids + ids
    assert ids == [token for _, turn in spoken for token in turn]
    assert mask == [int(kind == "own") for kind, turn in spoken for _ in turn]
    if logprobs is None:
        assert view.response_logprobs is None
        return
    assert view.response_logprobs is not None
    paired = list(zip(mask, view.response_logprobs, strict=True))
    assert [value for own, value in paired if own] == logprobs
    assert all(value == 0.0 for own, value in paired if not own)


@pytest.mark.parametrize("build", BUILDERS)
def test_the_prompt_is_the_chat_template_over_system_prompt_and_problem(build: Build) -> None:
    tokenizer = build()
    prompts = RolePrompts(long="so hard", short="")
    for role, system in [(Role.LONG, [{"role": "system", "content": "so hard"}]), (Role.SHORT, [])]:
        rendered = tokenizer.apply_chat_template(
            [*system, {"role": "user", "content": "1 + 2"}], tokenize=False, add_generation_prompt=True
        )
        view = RoleView(tokenizer, role, prompts, "1 + 2")
        assert view.prompt_ids == tokenizer.encode(rendered, add_special_tokens=False)
        assert (view.response_ids, view.response_mask, view.response_logprobs) == ([], [], [])
        assert json.loads(json.dumps(view.prompt_ids)) == view.prompt_ids


def test_own_tokens_are_not_tokenised_again() -> None:
    tokenizer = byte_level()
    letters = [tokenizer.encode(letter, add_special_tokens=False)[0] for letter in "<think>"]
    assert tokenizer.encode("<think>", add_special_tokens=False) != letters
    view = RoleView(tokenizer, Role.LONG, NO_PROMPTS, "p")
    view.add_own([*letters, tokenizer.eos_token_id], None)
    assert view.own_turns == [[*letters, tokenizer.eos_token_id]]


def test_a_partners_turn_does_not_merge_with_what_stands_before() -> None:
    tokenizer = byte_level()
    alone = tokenizer.encode("12", add_special_tokens=False)
    view = RoleView(tokenizer, Role.SHORT, NO_PROMPTS, "p")
    view.add_partner("12")
    view.add_partner("12")
    assert view.response_ids == alone * 2


def test_what_a_view_gives_out_is_a_copy() -> None:
    view = RoleView(byte_level(), Role.LONG, NO_PROMPTS, "p")
    view.add_own([1, 2], [-0.1, -0.2])
    for values in (
        view.prompt_ids,
        view.response_ids,
        view.response_mask,
        view.response_logprobs,
        view.own_turns,
    ):
        assert values is not None
        values.clear()
    assert (view.response_ids, view.response_mask, view.response_logprobs) == ([1, 2], [1, 1], [-0.1, -0.2])
    assert view.prompt_ids
    assert view.own_turns == [[1, 2]]


def test_log_probs_must_fit_the_tokens_and_come_for_all_turns_or_none() -> None:
    view = RoleView(byte_level(), Role.LONG, NO_PROMPTS, "p")
    with pytest.raises(ValueError, match="long: 1 log-probs for 2 tokens"):
        view.add_own([1, 2], [-0.1])
    view.add_own([1, 2], [-0.1, -0.2])
    with pytest.raises(ValueError, match="long: log-probs given for some turns only"):
        view.add_own([3], None)
    assert view.response_ids == [1, 2]


@pytest.mark.parametrize("build", BUILDERS)
def test_real_tokenizers_can_speak_the_protocol(build: Build) -> None:
    check_tokenizer(build())


def test_decoding_drops_special_tokens_only() -> None:
    tokenizer = byte_level()
    text = "<think> 5 , 6 . do n't </think>"
    assert decode_turn(tokenizer, [*tokenizer.encode(text), tokenizer.eos_token_id]) == text
    assert decode_turn(tokenizer, []) == ""


def fresh(chat_template: str = CHAT_ML) -> PreTrainedTokenizerFast:
    """A copy that a test may change."""
    return PreTrainedTokenizerFast(
        tokenizer_object=type(byte_level().backend_tokenizer).from_str(byte_level().backend_tokenizer.to_str()),
        eos_token="<|im_end|>",
        chat_template=chat_template,
    )


def test_a_tokenizer_whose_tags_are_special_is_refused() -> None:
    tokenizer = fresh()
    tokenizer.add_tokens([AddedToken("</think>", special=True)], special_tokens=True)
    with pytest.raises(UserError, match=r"tokenizer = .*turns the tag </think> into ''.*special=False"):
        check_tokenizer(tokenizer)


def test_a_tokenizer_whose_tags_are_added_but_not_special_is_fine() -> None:
    tokenizer = fresh()
    tokenizer.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in TAGS])
    check_tokenizer(tokenizer)
    assert len(tokenizer.encode("</think>", add_special_tokens=False)) == 1


def test_a_chat_template_that_opens_the_thought_itself_is_refused() -> None:
    with pytest.raises(UserError, match="chat template writes <think>"):
        check_tokenizer(fresh(CHAT_ML + "<think>\n"))


def test_a_tokenizer_that_gives_no_list_of_ids_is_refused() -> None:
    class Batched:
        """Answers like a tokenizer that ignores return_dict=False."""

        def apply_chat_template(self, conversation: list[dict[str, str]], **kwargs: Any) -> Any:
            return {"input_ids": [1, 2]}

    with pytest.raises(TypeError, match="gave dict instead of a list of token ids"):
        render_prompt(Batched(), "", "p")  # type: ignore[arg-type]
