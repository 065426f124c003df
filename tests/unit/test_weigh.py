"""`longshort weigh` on tiny models: records, sharing, resuming, the queue."""

import asyncio
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from helpers.engines import run
from longshort_reward.errors import UserError
from rich.console import Console

from verl_longshort.base.concurrency import PrioritySemaphore
from verl_longshort.base.files import write_jsonl
from verl_longshort.base.stage import execute
from verl_longshort.core.trajectory import Generation
from verl_longshort.data import weigh as stage
from verl_longshort.data.records import Chunked, Weighed, read_stage
from verl_longshort.data.rollouts import AnswerPrompt, Prober, Rollout, rollout_counts
from verl_longshort.data.weigh import summary
from verl_longshort.stages.weigh import WeighStage
from verl_longshort.world.tiny_model import build_model
from verl_longshort.world.tiny_tokenizer import build_tokenizer

ANSWER_PROMPT = AnswerPrompt(direct="<answer>", open="<think> ", close=" </think> <answer>", stop="</answer>")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Untrained: it says anything, which is all that counting needs."""
    folder = tmp_path_factory.mktemp("model")
    tokenizer = build_tokenizer()
    build_model(tokenizer, seed=0).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def weigh(overrides, console):
    return execute(WeighStage(), console, overrides=overrides)


def chain(digit: int) -> dict[str, Any]:
    texts = [
        f"okay , start at {digit} .",
        f"step a : {digit} + {digit} = 4 so a = 4 .",
        "so the answer is 4 .",
    ]
    return {
        "id": f"chain-{digit}",
        "problem": f"start {digit} ; a {digit} ?",
        "ground_truth": "4",
        "chain": " ".join(texts),
        "separator": " ",
        "thoughts": [{"text": text, "kind": "step"} for text in texts],
        "note": digit,
    }


@pytest.fixture
def settings(model: Path, tmp_path: Path) -> list[str]:
    write_jsonl(tmp_path / "thoughts.jsonl", [chain(digit) for digit in range(6)])
    return [
        f"longshort.input={tmp_path / 'thoughts.jsonl'}",
        f"longshort.output={tmp_path / 'weighed.jsonl'}",
        f"longshort.model={model}",
        "longshort.samples=3",
        "longshort.max_tokens=6",
        "longshort.max_num_seqs=8",
    ]


def quiet() -> Console:
    return Console(file=io.StringIO(), width=100)


def sampled(records: list[Weighed]) -> list[float]:
    """All that was sampled, as numbers."""
    return [
        float(number)
        for record in records
        for counts in [record.p_start, *record.thoughts]
        for number in (counts.correct, counts.samples, *counts.surprisals)
    ]


def same(records: list[Weighed]) -> Any:
    """What `sampled` gives, but for rounding: log-probs depend a little on what else is in the batch."""
    return pytest.approx(sampled(records), abs=1e-3)


# ---------------------------------------------------------------- the command


def test_records_are_what_the_next_stage_reads(settings: list[str], tmp_path: Path) -> None:
    console = quiet()
    weighed = weigh(settings, console)
    assert read_stage(tmp_path / "weighed.jsonl", Weighed, key="input") == weighed
    assert [record.id for record in weighed] == [f"chain-{digit}" for digit in range(6)]
    assert weighed[3].more["note"] == 3
    thought = weighed[0].thoughts[1]
    assert thought.tokens == 13
    assert (thought.samples, len(thought.surprisals)) == (3, 3)
    assert 0 <= thought.p_low <= thought.p <= thought.p_high <= 1
    assert weighed[0].p_start.samples == 3
    assert "decisions within noise" in console.file.getvalue()  # type: ignore[attr-defined]


def test_the_same_seed_gives_the_same_file(settings: list[str], tmp_path: Path) -> None:
    first = weigh(settings, quiet())
    other = weigh([*settings, f"longshort.output={tmp_path / 'again.jsonl'}", "longshort.max_num_seqs=3"], quiet())
    assert sampled(other) == same(first)
    seeded = weigh([*settings, f"longshort.output={tmp_path / 'third.jsonl'}", "longshort.seed=1"], quiet())
    assert sampled(seeded) != same(first)


def test_what_is_done_is_not_done_again(settings: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = weigh(settings, quiet())
    journal = tmp_path / "weighed.journal.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    # killed while the fourth record was being written
    journal.write_text("".join(lines[:4]) + lines[4][:20])
    (tmp_path / "weighed.jsonl").unlink()
    asked: list[str] = []

    async def spy(self: stage.Weigher, rank: int, record: Chunked) -> Any:
        asked.append(record.id)
        return await weigh_one(self, rank, record)

    weigh_one = stage.Weigher.weigh
    monkeypatch.setattr(stage.Weigher, "weigh", spy)
    resumed = weigh(settings, quiet())
    assert sampled(resumed) == same(whole)
    assert sorted(asked) == sorted(json.loads(line)["id"] for line in lines[4:])
    asked.clear()
    assert weigh(settings, quiet()) == resumed
    assert not asked


def test_rollouts_are_reported_before_a_chain_is_done(settings: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[float, str]] = []
    monkeypatch.setattr(stage, "_TELL_S", 0.0)
    monkeypatch.setattr(stage, "report", lambda done, total, message: told.append((done, message)))
    weigh(settings, quiet())
    assert told[0] == (0, "0/6 chains weighed, 0 rollouts")
    assert (0, "0/6 chains weighed, 1 rollouts") in told
    assert told[-1][0] == 6


def test_other_settings_do_not_go_on_with_the_file(settings: list[str]) -> None:
    weigh(settings, quiet())
    with pytest.raises(UserError, match="samples"):
        weigh([*settings, "longshort.samples=4"], quiet())


def test_a_chain_that_does_not_fit_is_rejected(settings: list[str], tmp_path: Path) -> None:
    long = chain(9)
    long["thoughts"][1]["text"] = " ".join(["step"] * 1100)
    long["chain"] = " ".join(thought["text"] for thought in long["thoughts"])
    write_jsonl(tmp_path / "thoughts.jsonl", [chain(1), long])
    assert [record.id for record in weigh(settings, quiet())] == ["chain-1"]
    (reject,) = (tmp_path / "weighed.rejects.jsonl").read_text().splitlines()
    assert json.loads(reject)["reason"] == "too long for the model"


def test_when_no_chain_fits_the_command_fails(settings: list[str], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no chain could be weighed; the first one, chain-0: too long for the model"):
        weigh([*settings, "longshort.max_tokens=1020"], quiet())
    assert not (tmp_path / "weighed.jsonl").exists()


def test_rollouts_of_which_none_is_correct_are_told(settings: list[str]) -> None:
    console = quiet()
    weigh([*settings, "longshort.max_tokens=1"], console)
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert "No rollout is correct" in said
    assert "of the rollouts ended; those that were cut off" in said
    assert "A rollout behind all thoughts of a chain: '" in said
    assert "rollouts that ended" in said


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("longshort.mode=some", "longshort.mode"),
        ("longshort.samples=0", "longshort.samples"),
        ("longshort.confidence=1", "longshort.confidence"),
        ("longshort.model=/nowhere", "longshort.model"),
        ("longshort.max_tokens=1024", "longshort.max_tokens = 1024: does not fit into the 1024 positions"),
        ("longshort.tokenizer=/nowhere", "longshort.tokenizer"),
        ("longshort.top_p=1.5", "longshort.top_p"),
        ("longshort.input=/nowhere.jsonl", "longshort.input"),
        ("longshort.smaples=2", "longshort.smaples"),
    ],
)
def test_mistakes_are_named(settings: list[str], override: str, named: str) -> None:
    with pytest.raises(UserError, match=named):
        weigh([*settings, override], quiet())


def test_adaptive_must_have_a_budget_for_its_first_samples(settings: list[str]) -> None:
    with pytest.raises(UserError, match="budget"):
        weigh([*settings, "longshort.mode=adaptive", "longshort.budget=2"], quiet())


# ---------------------------------------------------------------- adaptive


class Oracle:
    """An engine that is right with a probability given by the thoughts it is shown."""

    def __init__(self, chances: Sequence[float]) -> None:
        self._chances = chances
        self.tokenizer = build_tokenizer()
        self.asked: list[str] = []

    async def generate(self, *, request_id: str, prompt_ids: list[int], sampling: dict[str, Any]) -> Generation:
        self.asked.append(request_id)
        await asyncio.sleep(0)
        shown = self.tokenizer.decode(prompt_ids).count(" .")
        right = sampling.get("seed", 0) % 1000 < 1000 * self._chances[shown]
        text = f"\\boxed{{ {4 if right else 7} }} </answer>"
        ids = self.tokenizer.encode(text, add_special_tokens=False)
        return Generation(token_ids=ids, logprobs=[-0.5] * len(ids), finish_reason="stop")


def weigh_with(oracle: Oracle, settings: list[str], *more: str) -> Weighed:
    parsed = WeighStage().settings(overrides=[*settings, *more])
    prober = Prober(
        tokenizer=oracle.tokenizer,
        generate=oracle.generate,
        queue=PrioritySemaphore(16),
        answer_prompt=ANSWER_PROMPT,
        system_prompt="",
        sampling=parsed.sampling,
        seed=0,
        answer_timeout_s=5,
    )
    weigher = stage.Weigher(settings=parsed, prober=prober, counter=oracle.tokenizer, room=1000)
    return run(weigher.weigh(0, Chunked.model_validate(chain(2))))


def rollouts_of(record: Weighed) -> int:
    return sum(counts.samples for counts in [record.p_start, *record.thoughts])


def test_rollouts_are_counted_by_prefix(settings: list[str]) -> None:
    record = weigh_with(Oracle([0, 0, 1, 1]), settings, "longshort.samples=5")
    assert record.p_start.correct == 0
    assert [thought.correct for thought in record.thoughts] == [0, 5, 5]
    assert record.p_start.surprisals[0] == pytest.approx(2.0)
    assert (record.p_start.ended, record.p_start.example) == (5, "\\boxed{ 7 } </answer>")
    assert stage.warnings([record]) == []


def test_adaptive_stops_where_it_is_clear(settings: list[str]) -> None:
    adaptive = ["longshort.mode=adaptive", "longshort.samples=8", "longshort.budget=100"]
    clear = weigh_with(Oracle([0, 0.02, 1, 1]), settings, *adaptive)
    assert rollouts_of(clear) <= 100
    assert all(thought.flip <= 0.1 for thought in clear.thoughts)
    again = weigh_with(Oracle([0, 0.02, 1, 1]), settings, *adaptive)
    assert clear == again


def test_adaptive_stays_within_its_budget(settings: list[str]) -> None:
    adaptive = ["longshort.mode=adaptive", "longshort.budget=20", "longshort.confidence=0.999"]
    open_case = weigh_with(Oracle([0.5] * 4), settings, *adaptive)
    assert 12 < rollouts_of(open_case) <= 20 * 4


def test_no_rollout_is_sampled_twice(settings: list[str]) -> None:
    oracle = Oracle([0.5] * 4)
    weigh_with(oracle, settings, "longshort.mode=adaptive", "longshort.confidence=0.99")
    assert len(set(oracle.asked)) == len(oracle.asked)


def test_a_cut_answer_is_incorrect(settings: list[str]) -> None:
    oracle = Oracle([1.0] * 4)
    whole = oracle.generate

    async def cut(**request: Any) -> Generation:
        made = await whole(**request)
        return Generation(token_ids=made.token_ids, logprobs=made.logprobs, finish_reason="length")

    oracle.generate = cut  # type: ignore[method-assign]
    record = weigh_with(oracle, settings)
    assert [t.correct for t in record.thoughts] == [0, 0, 0]
    assert [t.ended for t in record.thoughts] == [0, 0, 0]
    told = stage.warnings([record])
    assert told[0].startswith("Only 0% of the rollouts ended")
    assert told[1].startswith("No rollout is correct")
    assert told[2] == "A rollout behind all thoughts of a chain: '\\\\boxed{ 4 } </answer>'"


def test_records_that_do_not_say_what_ended_are_taken(settings: list[str]) -> None:
    record = weigh_with(Oracle([1.0] * 4), settings).to_record()
    for counts in (record["p_start"], *record["thoughts"]):
        del counts["ended"], counts["example"]
    old = Weighed.model_validate(record)
    assert old.to_record() == record
    assert stage.warnings([old]) == []
    assert summary([old], [], 0.9)["rollouts that ended"] == "not recorded"


# ---------------------------------------------------------------- parts


def test_contexts_grow_by_thoughts() -> None:
    assert ANSWER_PROMPT.text([], " ") == "<answer>"
    assert ANSWER_PROMPT.text(["one .", "two ."], "\n\n") == "<think> one .\n\ntwo . </think> <answer>"


def test_the_queue_lets_the_earliest_record_through_first() -> None:
    order: list[int] = []

    async def hold(queue: PrioritySemaphore, rank: int) -> None:
        async with queue.turn(rank):
            order.append(rank)
            await asyncio.sleep(0)

    async def all_at_once() -> None:
        queue = PrioritySemaphore(1)
        await asyncio.gather(*(hold(queue, rank) for rank in (5, 3, 4, 1, 2)))

    run(all_at_once())
    assert order == [5, 1, 2, 3, 4]


def test_the_queue_survives_who_stops_waiting() -> None:
    async def story() -> None:
        queue = PrioritySemaphore(1)
        async with queue.turn(0):
            waiting = [asyncio.create_task(hold(queue, rank)) for rank in (1, 2)]
            await asyncio.sleep(0)
            waiting[0].cancel()
        await asyncio.wait_for(waiting[1], 5)
        await asyncio.wait_for(hold(queue, 3), 5)

    async def hold(queue: PrioritySemaphore, rank: int) -> None:
        async with queue.turn(rank):
            pass

    run(story())


def test_summary_without_any_record() -> None:
    assert summary([], [], 0.9) == {"chains weighed": "0", "chains rejected": "0"}


def test_rollouts_are_counted() -> None:
    rollouts = [
        Rollout(correct=True, surprisal=0.1, ended=True, text="4", answer="4"),
        Rollout(correct=False, surprisal=2.0, ended=False, text="7 , or"),
    ]
    expected = {"right": 1, "samples": 2, "surprises": [0.1, 2.0], "ended": 1, "example": "4"}
    assert rollout_counts(rollouts).to_record() == {**expected, "answers": ["4", ""]}
    forced = rollout_counts(rollouts[:1], rollouts).forced
    assert forced is not None
    assert forced.to_record() == expected
