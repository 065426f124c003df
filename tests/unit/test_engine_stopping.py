"""Stop strings over tokenizers that cut text differently, and in the engine."""

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from helpers.engines import ask, build_engine, build_model, run
from helpers.tiny_tokenizers import byte_level, normalising, word_level

from verl_longshort.engines.stopping import StopStrings
from verl_longshort.engines.transformers_engine import TransformersEngine

TOKENIZERS = [byte_level, normalising, word_level]


def stops_at(tokenizer: Any, text: str, strings: Sequence[str]) -> str | None:
    """The text up to the token at which generation would stop, token by token."""
    stop = StopStrings(tokenizer, strings)
    tokens = tokenizer.encode(text, add_special_tokens=False)
    for count in range(1, len(tokens) + 1):
        if stop.completed_by_last(tokens[:count]):
            return tokenizer.decode(tokens[:count], skip_special_tokens=False)
    return None


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_tag_ends_the_text(tokenizer: Any) -> None:
    text = "<think> so a = 1 + 2 </think> <answer> 3 </answer>"
    stopped = stops_at(tokenizer(), text, ("</answer>", "</think>"))
    assert stopped is not None
    assert stopped.endswith("</think>")
    assert stopped.count("</") == 1


def test_string_that_straddles_many_tokens() -> None:
    tokenizer = byte_level()
    pieces = tokenizer.encode("</rethink>", add_special_tokens=False)
    assert len(tokenizer.encode("q</zzz>", add_special_tokens=False)) > 4
    assert stops_at(tokenizer, "x q</zzz> more", ("</zzz>",)) == "x q</zzz>"
    assert pieces


def test_match_may_end_inside_a_token() -> None:
    tokenizer = byte_level()
    token = next(t for t in range(len(tokenizer)) if len(tokenizer.decode([t])) >= 3)
    text = tokenizer.decode([token])
    assert StopStrings(tokenizer, (text[:2],)).completed_by_last([token])


def test_bytes_of_one_character_spread_over_tokens() -> None:
    tokenizer = byte_level()
    assert len(tokenizer.encode("語", add_special_tokens=False)) > 1
    assert stops_at(tokenizer, "ab語cd", ("b語",)) == "ab語"


def test_string_that_ends_with_a_space() -> None:
    assert stops_at(word_level(), "so a b", ("a ",)) == "so a b"


@pytest.mark.parametrize("text", ["</thinking", "<think> </ think>", "< / think >", ""])
def test_near_misses_do_not_stop(text: str) -> None:
    assert stops_at(byte_level(), text, ("</think>",)) is None


def test_only_a_match_that_reaches_the_newest_token_counts() -> None:
    tokenizer = word_level()
    tokens = tokenizer.encode("</think> so </answer>", add_special_tokens=False)
    stop = StopStrings(tokenizer, ("</think>",))
    assert stop.completed_by_last(tokens[:1])
    assert not stop.completed_by_last(tokens)


def test_no_strings_never_stop() -> None:
    assert stops_at(word_level(), "so </think>", ()) is None


@pytest.fixture(scope="module")
def reciting() -> Iterator[TransformersEngine]:
    """An engine whose model says word after word of the vocabulary, whatever came before."""
    model = build_model("qwen2")
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "layers" in name and "norm" not in name:
                weight.zero_()
        model.model.embed_tokens.weight.copy_(torch.randn_like(model.model.embed_tokens.weight))
        model.lm_head.weight = torch.nn.Parameter(model.model.embed_tokens.weight.roll(1, dims=0))
    with build_engine(model) as engine:
        yield engine


def test_engine_stops_on_strings_and_after_min_tokens(reciting: TransformersEngine) -> None:
    words = word_level()
    begin = words.convert_tokens_to_ids("<think>")
    stopped = run(ask(reciting, [begin], temperature=0, stop=["</think>", "</answer>"]))
    assert words.decode(stopped.token_ids) == "</think>"
    assert stopped.finish_reason == "stop"
    later = run(ask(reciting, [begin], temperature=0, stop=["</think>", "</answer>"], min_tokens=2))
    assert words.decode(later.token_ids) == "</think> <answer> </answer>"
    straddling = run(ask(reciting, [begin], temperature=0, stop=["k> <answer> </a"]))
    assert words.decode(straddling.token_ids) == "</think> <answer> </answer>"
