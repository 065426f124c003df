"""The base model of the miniature world: rows of the curriculum, training, what is written."""

import random
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from verl_longshort.engines.tokenizers import check_chat
from verl_longshort.world import tiny_model
from verl_longshort.world.tiny_curriculum import IGNORED, Lesson, RowMaker, batches
from verl_longshort.world.tiny_model import build_model, train_base
from verl_longshort.world.tiny_tokenizer import build_tokenizer
from verl_longshort.world.world import Difficulty, draw_problem

ALL_KINDS = {"walk": 2, "facts": 2, "long": 1, "direct": 1, "prefixed": 1}
LESSON = Lesson(steps=2, rows=ALL_KINDS, difficulty=Difficulty())


@pytest.mark.parametrize("seed", range(20))
def test_loss_never_falls_on_a_tag_that_chooses_the_mode(seed: int) -> None:
    tokenizer = build_tokenizer()
    maker, problem = RowMaker(tokenizer, random.Random(seed)), draw_problem(random.Random(seed), Difficulty())
    for row in (maker.direct(problem), maker.prefixed(problem)):
        words = tokenizer.convert_ids_to_tokens(row.ids)
        counted = [word for word, counts in zip(words, row.counts, strict=True) if counts]
        assert not {"<think>", "</think>", "<answer>"} & set(counted)
        assert words[-2:] == ["</answer>", "<eos>"]


def test_batches_pad_labels_with_the_ignored_value() -> None:
    tokenizer = build_tokenizer()
    for kinds in batches(LESSON, tokenizer, random.Random(0)):
        assert len(kinds) == len(ALL_KINDS)
        for ids, labels in (batch for parts in kinds for batch in parts):
            assert ids.shape == labels.shape
            assert (labels[ids == tokenizer.pad_token_id] == IGNORED).all()
            assert ((labels == IGNORED) | (labels == ids)).all()


def test_model_is_small_and_servable() -> None:
    model = build_model(build_tokenizer(), seed=0)
    assert sum(parameter.numel() for parameter in model.parameters()) < 200_000
    assert model.config.hidden_size // model.config.num_attention_heads >= 32


@pytest.mark.parametrize("cores", [1, 2])
def test_training_gives_the_same_model_whatever_the_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cores: int
) -> None:
    monkeypatch.setattr(tiny_model.os, "cpu_count", lambda: cores)
    train_base(tmp_path, seed=0, curriculum=(LESSON,))
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    ids = AutoTokenizer.from_pretrained(tmp_path)("<bos> start 7 ; a 5 ?", return_tensors="pt").input_ids
    untrained = build_model(build_tokenizer(), seed=0)
    reference = _reference(monkeypatch, tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, reference(ids).logits, atol=1e-4, rtol=1e-3)
        assert not torch.allclose(model(ids).logits, untrained(ids).logits, atol=1e-4)


def _reference(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> torch.nn.Module:
    monkeypatch.setattr(tiny_model.os, "cpu_count", lambda: 1)
    train_base(tmp_path / "reference", seed=0, curriculum=(LESSON,))
    return AutoModelForCausalLM.from_pretrained(tmp_path / "reference")


def test_a_lesson_ends_when_its_rows_are_mastered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiny_model.os, "cpu_count", lambda: 1)
    easily = Lesson(steps=50, rows={"walk": 1}, difficulty=Difficulty(), mastered={"walk": 1e9})
    at_once = Lesson(steps=1, rows={"walk": 1}, difficulty=Difficulty())
    for name, lesson in (("early", easily), ("one", at_once)):
        train_base(tmp_path / name, seed=0, curriculum=(lesson,))
    early, one = (AutoModelForCausalLM.from_pretrained(tmp_path / n).state_dict() for n in ("early", "one"))
    assert all(torch.equal(early[name], value) for name, value in one.items())


def test_what_is_not_learned_begins_anew_with_other_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tiny_model.os, "cpu_count", lambda: 1)
    monkeypatch.setattr(tiny_model, "_ATTEMPTS", 2)
    hard = Lesson(steps=2, rows={"walk": 1, "facts": 1}, difficulty=Difficulty(), mastered={"facts": 0.01})
    with pytest.raises(RuntimeError, match=r"no base in 2 attempts, .* for facts \(below 0\.01\) in the last"):
        train_base(tmp_path, seed=0, curriculum=(hard,))
    first, second = (line for line in capsys.readouterr().out.splitlines() if line.startswith("attempt"))
    assert first.startswith("attempt 1 of 2: after 2 steps the loss is ")
    assert first.partition(":")[2] != second.partition(":")[2]


def test_a_loss_that_is_no_number_is_not_mastered() -> None:
    lesson = Lesson(steps=1, rows={"walk": 1}, difficulty=Difficulty(), mastered={"walk": 1.0})
    assert tiny_model._missed(lesson, torch.tensor([torch.nan]))
    assert not tiny_model._missed(lesson, torch.tensor([0.5]))


def test_its_tokenizer_passes_the_checks_of_training() -> None:
    check_chat(build_tokenizer(), "tiny", key="model", system="", prompt_key="longshort.environment.prompts.long")
