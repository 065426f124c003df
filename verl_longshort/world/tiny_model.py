"""The base model of the miniature world: a small Llama, trained from scratch in minutes on a CPU.

`train_base` runs a curriculum whose number of steps depends on the seed alone, so the result does not depend
on the speed of the machine. When a skill is found is a matter of luck: where first weights do not find one in
time, the training begins anew with others. Every batch is made of `SHARDS` shards whose gradients are averaged;
where there are cores for it, each shard has its own process, and the mathematics is the same with one process.
"""

import multiprocessing
import os
import random
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from verl_longshort.base.console import say
from verl_longshort.base.progress import report
from verl_longshort.base.seeds import derived_seed
from verl_longshort.world.tiny_curriculum import CURRICULUM, IGNORED, Batch, Lesson, batches
from verl_longshort.world.tiny_tokenizer import build_tokenizer

SHARDS = 2
MAX_POSITIONS = 1024
_LEARNING_RATE = 3e-3
_FINAL_RATE = 0.02
_WARMUP_STEPS = 50
# about where the last lesson begins
_DECAY_FROM = 0.67
_PARTNER_TIMEOUT = timedelta(seconds=120)
_REPORT_EVERY = 10
_SMOOTHING = 0.9
_ATTEMPTS = 5


def build_model(tokenizer: PreTrainedTokenizerFast, *, seed: int) -> LlamaForCausalLM:
    """An untrained model of 0.16 M parameters; heads of 32, the least that serving engines take.

    Llama and not Qwen2: beside a Qwen2 model, transformers loads Qwen2's own byte-level tokenizer whatever
    tokenizer was saved.
    """
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=192,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=MAX_POSITIONS,
        attention_bias=True,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return LlamaForCausalLM(config)


def train_base(output_dir: Path, *, seed: int, curriculum: Sequence[Lesson] = CURRICULUM) -> None:
    """Train the base and write model and tokenizer as a Hugging Face folder.

    Raises:
        RuntimeError: no attempt learned the curriculum, or the process that trains the other shard died or stopped
            answering.
    """
    processes = min(SHARDS, os.cpu_count() or 1)
    with tempfile.TemporaryDirectory() as meeting_place, _one_thread():
        job = (processes, f"{meeting_place}/store", seed, curriculum)
        spawn = multiprocessing.get_context("spawn")
        helpers = [spawn.Process(target=_train, args=(rank, *job), daemon=True) for rank in range(1, processes)]
        for helper in helpers:
            helper.start()
        model = _train(0, *job)
        for helper in helpers:
            helper.join(timeout=_PARTNER_TIMEOUT.total_seconds())
    model.save_pretrained(output_dir)
    build_tokenizer().save_pretrained(output_dir)


def _train(rank: int, processes: int, meeting_point: str, seed: int, curriculum: Sequence[Lesson]) -> LlamaForCausalLM:
    torch.set_num_threads(1)
    if processes > 1:
        dist.init_process_group("gloo", f"file://{meeting_point}", _PARTNER_TIMEOUT, rank=rank, world_size=processes)
    try:
        for attempt in range(_ATTEMPTS):
            own = derived_seed(seed, f"base/{attempt}") if attempt else seed
            try:
                return _Training(range(rank, SHARDS, processes), own, curriculum).run(quiet=rank > 0)
            except _NotLearnedError as error:
                reason = error
                if rank == 0:
                    say(f"attempt {attempt + 1} of {_ATTEMPTS}: {error}; other first weights may be luckier")
        raise RuntimeError(f"no base in {_ATTEMPTS} attempts, {reason} in the last: give another seed")
    finally:
        if processes > 1:
            dist.destroy_process_group()


class _NotLearnedError(Exception):
    """A lesson ended and was not mastered."""


class _Training:
    """The optimizer loop of one process, over the shards that are its own."""

    def __init__(self, shards: Sequence[int], seed: int, curriculum: Sequence[Lesson]) -> None:
        self._tokenizer = build_tokenizer()
        self._curriculum = curriculum
        self._total = sum(lesson.steps for lesson in curriculum)
        self._rngs = [random.Random(f"{seed}/{shard}") for shard in shards]
        self._model = build_model(self._tokenizer, seed=seed)
        self._gradient = _flat_gradient(self._model)
        self._optimizer = torch.optim.AdamW(
            self._model.parameters(), lr=_LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.01
        )

    def run(self, *, quiet: bool) -> LlamaForCausalLM:
        self._model.train()
        start = 0
        for lesson in self._curriculum:
            smoothed = torch.full((len(lesson.rows),), torch.inf)
            shards = (batches(lesson, self._tokenizer, rng) for rng in self._rngs)
            for step, shard_batches in enumerate(zip(*shards, strict=True)):
                done = start + step
                losses = self._step(shard_batches, _LEARNING_RATE * _rate(step, done / self._total))
                smoothed = losses if step == 0 else _SMOOTHING * smoothed + (1 - _SMOOTHING) * losses
                if not quiet and done % _REPORT_EVERY == 0:
                    report(done, self._total, f"loss {losses.mean():.3f}")
                missed = _missed(lesson, smoothed)
                if lesson.ends_early and lesson.mastered and not missed:
                    break
            if missed:
                raise _NotLearnedError(f"after {lesson.steps} steps the loss is {missed}")
            start += lesson.steps
        return self._model

    def _step(self, shard_batches: Sequence[list[list[Batch]]], rate: float) -> torch.Tensor:
        """One update; returns the mean loss of each kind of row over all shards, shape (kinds,)."""
        self._gradient.zero_()
        losses = torch.zeros(len(shard_batches[0]))
        for kinds in shard_batches:
            for kind, parts in enumerate(kinds):
                counted = sum(int(_counted(labels).sum()) for _, labels in parts)
                for ids, labels in parts:
                    loss = _summed_loss(self._model, ids, labels) / (counted * SHARDS)
                    (loss / len(kinds)).backward()
                    losses[kind] += loss.detach()
        if dist.is_initialized():
            dist.all_reduce(self._gradient)
            dist.all_reduce(losses)
        torch.nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()
        return losses


def _missed(lesson: Lesson, losses: torch.Tensor) -> str:
    """The kinds of row that are not mastered, with their losses (not a number is none); empty: there are none."""
    by_kind = dict(zip(lesson.rows, losses.tolist(), strict=True))
    bounds = lesson.mastered.items()
    return ", ".join(
        f"{by_kind[kind]:.3f} for {kind} (below {bound})" for kind, bound in bounds if not by_kind[kind] < bound
    )


def _counted(labels: torch.Tensor) -> torch.Tensor:
    """Which tokens behind the first one are learned, (rows, length - 1)."""
    return labels[:, 1:] != IGNORED


def _summed_loss(model: LlamaForCausalLM, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy summed over the counted tokens; ids and labels are (rows, length), padded on the right."""
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
    counted = _counted(labels)
    return cross_entropy(model.lm_head(hidden[counted]), labels[:, 1:][counted], reduction="sum")


def _flat_gradient(model: torch.nn.Module) -> torch.Tensor:
    """One vector that holds every gradient of the model, so that the shards meet in a single reduction."""
    flat = torch.zeros(sum(parameter.numel() for parameter in model.parameters()))
    offset = 0
    for parameter in model.parameters():
        parameter.grad = flat[offset : offset + parameter.numel()].view_as(parameter)
        offset += parameter.numel()
    return flat


def _rate(step_of_lesson: int, progress: float) -> float:
    """Learning-rate factor: each lesson warms up again, the last part of the whole run decays linearly."""
    warm = min(1.0, (step_of_lesson + 1) / _WARMUP_STEPS)
    decayed = max(0.0, progress - _DECAY_FROM) / (1 - _DECAY_FROM)
    return warm * (1 - (1 - _FINAL_RATE) * decayed)


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
