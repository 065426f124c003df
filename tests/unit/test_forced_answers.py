"""Answers that must be named at once, and the joining that a model can do; scripted engines and real tokenizers."""

import asyncio
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.tiny_tokenizers import byte_level
from helpers.word_models import save_successors
from longshort_reward.errors import UserError
from rich.console import Console

from verl_longshort.base.concurrency import PrioritySemaphore
from verl_longshort.base.files import write_jsonl
from verl_longshort.base.journal import RecordFile
from verl_longshort.base.stage import execute
from verl_longshort.core.trajectory import Generation
from verl_longshort.data.forced import ForcedSettings, Forcer
from verl_longshort.data.joinings import shipped, try_joinings
from verl_longshort.data.records import Chunked
from verl_longshort.data.rollouts import AnswerPrompt, Prober, Rollout
from verl_longshort.data.weigh import _chosen_joining
from verl_longshort.stages.weigh import WeighStage

WORDS = "The answer is \\boxed{"
TAGS = AnswerPrompt(direct="<answer>", open="<think>\n", close="\n</think>\n<answer>", stop="</answer>")
TOKENIZER = byte_level()
Says = Callable[[str, dict[str, Any]], str]


def chunked(truth: str = "27") -> Chunked:
    texts = ["We need the sum.", "It is 27."]
    return Chunked.model_validate(
        {
            **{"id": "a", "problem": "How many?", "ground_truth": truth, "chain": "\n\n".join(texts)},
            **{"separator": "\n\n", "thoughts": [{"text": text, "kind": "step"} for text in texts]},
        }
    )


def prober(says: Says, joining: AnswerPrompt = TAGS) -> Prober:
    """A model that continues a context as `says` has it, one token at a time, until a stop string."""

    async def generate(*, request_id: str, prompt_ids: list[int], sampling: dict[str, Any]) -> Generation:
        text = says(TOKENIZER.decode(prompt_ids), sampling)
        kept, ended = [], True
        for token in TOKENIZER.encode(text, add_special_tokens=False):
            kept.append(token)
            if any(stop in TOKENIZER.decode(kept) for stop in sampling["stop"]):
                break
            if len(kept) == sampling["max_tokens"]:
                ended = False
                break
        finish = "stop" if ended else "length"
        return Generation(token_ids=kept, logprobs=[-0.5] * len(kept), finish_reason=finish)

    return Prober(
        tokenizer=TOKENIZER,
        generate=generate,
        queue=PrioritySemaphore(4),
        answer_prompt=joining,
        system_prompt="",
        sampling={"temperature": 1.0, "top_p": 1.0, "max_tokens": 64},
        seed=0,
        answer_timeout_s=5,
    )


def forced(says: Says, *, joining: AnswerPrompt = TAGS, truth: str = "27", prefix: int = 2) -> Rollout:
    settings = ForcedSettings(samples=1, words=WORDS, max_tokens=24)
    forcer = Forcer(prober=prober(says, joining), settings=settings)
    record = chunked(truth)
    (rollout,) = asyncio.run(forcer.sample(0, record, prefix, forcer.contexts(record)[prefix]))
    return rollout


def test_only_the_answer_counts() -> None:
    asked: list[tuple[str, dict[str, Any]]] = []

    def says(context: str, sampling: dict[str, Any]) -> str:
        asked.append((context, sampling))
        return "27} and more words of its own"

    rollout = forced(says)
    assert (rollout.correct, rollout.ended, rollout.text) == (True, True, "27}")
    assert rollout.surprisal == 0.5 * len(TOKENIZER.encode("27}"))
    ((context, sampling),) = asked
    assert context.endswith(f"It is 27.\n</think>\n<answer> {WORDS}")
    assert sampling["stop"] == ["}"]


@pytest.mark.parametrize(("joining", "end"), [(TAGS, f"<answer> {WORDS}"), (shipped()["chat"], f"assistant\n{WORDS}")])
def test_behind_no_thought(joining: AnswerPrompt, end: str) -> None:
    contexts: list[str] = []

    def says(context: str, sampling: dict[str, Any]) -> str:
        contexts.append(context)
        return "27}"

    forced(says, joining=joining, prefix=0)
    assert contexts[0].endswith(end)


def test_an_answer_with_braces_goes_on_to_its_own_end() -> None:
    pieces = {WORDS: "\\frac{1}", "\\frac{1}": "{2}", "{2}": "} dots"}
    asked: list[int] = []

    def says(context: str, sampling: dict[str, Any]) -> str:
        asked.append(sampling["seed"])
        return next(said for end, said in reversed(pieces.items()) if context.endswith(end))

    rollout = forced(says, truth="0.5")
    assert (rollout.text, rollout.ended, rollout.correct) == ("\\frac{1}{2}}", True, True)
    assert len(set(asked)) == 3, "each piece has a seed of its own"


@pytest.mark.parametrize("said", ["", "a long answer that never ends, never, never, never, never ends"])
def test_an_answer_without_an_end_is_incorrect(said: str) -> None:
    rollout = forced(lambda context, sampling: said)
    assert (rollout.correct, rollout.ended) == (False, False)


def test_words_must_open_a_box() -> None:
    with pytest.raises(UserError, match="must end with"):
        ForcedSettings.parse({"samples": 1, "words": "So", "max_tokens": 8}, "longshort.forced")


# ---------------------------------------------------------------- the joining


def chat_model(context: str, sampling: dict[str, Any]) -> str:
    """Closes no tag, whatever it is given."""
    return "It is \\boxed{27}." if "</think>" not in context else "so, so, so" * 30


def tag_model(context: str, sampling: dict[str, Any]) -> str:
    return "\\boxed{27}</answer>" if context.endswith("<answer>") else "hard" * 60


@pytest.mark.parametrize(("says", "name"), [(chat_model, "chat"), (tag_model, "tags")])
def test_the_joining_is_the_one_that_the_model_can_do(says: Says, name: str) -> None:
    trials = asyncio.run(try_joinings(prober(says), [chunked()] * 2, 4096, shipped()))
    assert trials[0].name == name
    assert str(trials[0]) == f"{name}: 8 of 8 rollouts correct, 8 ended"
    assert trials[1].score == (0, 0)


def test_the_joining_of_a_journal_stays(tmp_path: Path) -> None:
    shown = io.StringIO()
    with RecordFile(tmp_path / "journal.jsonl", {}) as journal:
        waiting = [(0, chunked())]
        chosen = asyncio.run(_chosen_joining(prober(chat_model), waiting, journal, 4096, Console(file=shown)))
        assert chosen == shipped()["chat"]
        assert "joining chat, by rollouts behind whole chains; chat: 4 of 4" in shown.getvalue()
        journal.append({"id": "b", "joining": TAGS.model_dump()})
        assert asyncio.run(_chosen_joining(prober(chat_model), waiting, journal, 4096, Console(file=shown))) == TAGS


def test_weigh_chooses_and_forces(tmp_path: Path) -> None:
    """A real model behind the command: it says `27}` behind `{`, and ends."""
    ids = TOKENIZER.encode("{27}", add_special_tokens=False)
    following = dict(zip(ids, [*ids[1:], TOKENIZER.eos_token_id], strict=True))
    model = save_successors(tmp_path / "model", TOKENIZER, following)
    write_jsonl(tmp_path / "thoughts.jsonl", [chunked().to_record()])
    overrides = [f"longshort.input={tmp_path / 'thoughts.jsonl'}", f"longshort.output={tmp_path / 'weighed.jsonl'}"]
    overrides += [f"longshort.model={model}", "longshort.samples=2", "longshort.max_tokens=4", "longshort.joining=auto"]
    overrides += ["longshort.forced.samples=3", "longshort.temperature=0.01"]
    overrides += ["longshort.resample.records=1", "longshort.resample.samples=2", "longshort.resample.max_tokens=6"]
    shown = io.StringIO()
    (record,) = execute(WeighStage(), Console(file=shown, width=200), overrides=overrides)
    for counts in (record.p_start, *record.thoughts):
        assert counts.forced is not None
        assert (counts.forced.correct, counts.forced.samples, counts.forced.ended) == (3, 3, 3)
        assert counts.forced.surprisals == pytest.approx([0, 0, 0], abs=1e-3)
        assert len(counts.answers) == 2
    assert [thought.more["resampled"]["different"] for thought in record.thoughts] == [2, 2]
    assert record.joining in [each.model_dump() for each in shipped().values()]
    assert "correct when forced" in shown.getvalue()
