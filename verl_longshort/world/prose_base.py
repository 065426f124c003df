"""The base model of the prose world: a pretrained chat model that is taught the world's long chains.

It stands in for a reasoning model where none can be had. As the base of the miniature world it learns two modes:
`<think>` opens the long chain, closed by the boxed answer; `<answer>` opens the concise form, either at once or after
the first thoughts of a chain. It opens with `<think>` by itself: in the other rows the tags that choose the mode carry
no loss. So its long chain can be measured, and its rollouts from a prefix weigh the thoughts in it.
"""

import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from longshort_reward.protocol import ANSWER_CLOSE, ANSWER_OPEN, THINK_CLOSE, THINK_OPEN

from verl_longshort.base.device import computes_in_bfloat16, finds_gpu
from verl_longshort.base.files import model_identity
from verl_longshort.base.folders import replace_folder, work_folder, writing
from verl_longshort.base.progress import report
from verl_longshort.base.seeds import derived_bytes
from verl_longshort.core.role_view import render_prompt
from verl_longshort.world.prose import (
    boxed_answer,
    chain_of_thought,
    concise_solution,
    steps_worked,
    stream_word_problems,
)
from verl_longshort.world.world import Split

_KINDS, _WEIGHTS = ("long", "prefixed", "direct"), (0.4, 0.4, 0.2)
_BATCH, _RATE, _WARMUP_SHARE = 4, 3e-4, 0.1
_CHECKPOINTS = 5
"""How often a run that is killed could be resumed."""
_LOG_EVERY = 5  # steps
_IGNORED = -100
Row = dict[str, list[int]]


def training_rows(tokenizer: Any, *, seed: int, count: int) -> list[Row]:
    """Rows of both modes for problems of the train split: `input_ids` and `labels`, -100 where nothing counts."""
    rng = random.Random(seed)
    problems = stream_word_problems(rng, Split.TRAIN)
    rows = []
    for _ in range(count):
        problem, kind = next(problems), rng.choices(_KINDS, _WEIGHTS)[0]
        thoughts = chain_of_thought(problem, rng)
        kept = {"long": len(thoughts), "prefixed": rng.randrange(1, len(thoughts)), "direct": 0}[kind]
        prefix = "\n\n".join(thought.text for thought in thoughts[:kept])
        rest = concise_solution(problem, from_step=steps_worked(thoughts[:kept]))
        answer = boxed_answer(problem) if kind == "long" else rest
        spans: list[tuple[str, bool]] = [(f"{THINK_OPEN} {prefix}", True)] if prefix else []
        spans.append((f" {THINK_CLOSE} {ANSWER_OPEN}" if prefix else ANSWER_OPEN, kind == "long"))
        spans.append((f" {answer} {ANSWER_CLOSE}{tokenizer.eos_token}", True))
        rows.append(_row(tokenizer, render_prompt(tokenizer, "", problem.text), spans))
    return rows


def train_prose_base(model: str, out: Path, *, seed: int, rows: int) -> None:
    """Fine-tune all weights of `model` for one pass over `rows` rows and write the folder `out`.

    In bfloat16, where the machine computes in it, with fp32 weights. A run that was killed goes on from its last
    checkpoint beside `out`.

    Raises UserError for a model that cannot be loaded, and RunDiedError for a full disk.
    """
    import torch
    from transformers import DataCollatorForSeq2Seq, Trainer, TrainerCallback, TrainingArguments

    from verl_longshort.engines.loading import load_model
    from verl_longshort.engines.tokenizers import load_tokenizer

    class Reporter(TrainerCallback):
        """Tells the progress of the stage."""

        def on_log(self, args: Any, state: Any, control: Any, logs: Any, **kwargs: Any) -> None:
            # The last log is a summary without a loss.
            if "loss" in logs:
                report(state.global_step, state.max_steps, f"loss {logs['loss']:.3f}")

    work = work_folder(out)
    # Other settings find no checkpoint of these.
    checkpoints = work / derived_bytes(seed, f"{model_identity(model)}/{rows}").hex()[:16]
    loaded = load_model(model, key="--model", dtype=torch.float32)
    tokenizer = load_tokenizer(model, key="--model")
    steps = -(-rows // _BATCH)
    arguments = TrainingArguments(
        output_dir=str(checkpoints),
        per_device_train_batch_size=_BATCH,
        num_train_epochs=1,
        learning_rate=_RATE,
        lr_scheduler_type="cosine",
        warmup_steps=int(_WARMUP_SHARE * steps),
        bf16=computes_in_bfloat16(),
        use_cpu=not finds_gpu(),
        train_sampling_strategy="group_by_length",
        save_steps=max(1, steps // _CHECKPOINTS),
        save_total_limit=1,
        logging_steps=_LOG_EVERY,
        disable_tqdm=True,
        report_to="none",
        seed=seed,
    )
    trainer = Trainer(
        model=loaded,
        args=arguments,
        train_dataset=training_rows(tokenizer, seed=seed, count=rows),  # type: ignore[arg-type,unused-ignore]
        data_collator=DataCollatorForSeq2Seq(tokenizer),
        callbacks=[Reporter()],
    )
    with writing(work, out):
        trainer.train(resume_from_checkpoint=any(checkpoints.glob("checkpoint-*")) or None)
        # Beside the checkpoints, of which nothing should remain.
        loaded.save_pretrained(work / "model")
        tokenizer.save_pretrained(work / "model")
    replace_folder(work / "model", out)
    shutil.rmtree(work)


def _row(tokenizer: Any, prompt: Sequence[int], spans: Sequence[tuple[str, bool]]) -> Row:
    ids, labels = list(prompt), [_IGNORED] * len(prompt)
    for text, counts in spans:
        tokens = tokenizer.encode(text, add_special_tokens=False)
        ids += tokens
        labels += tokens if counts else [_IGNORED] * len(tokens)
    return {"input_ids": ids, "labels": labels}
