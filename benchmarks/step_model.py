"""How well the planner's simulation predicts the steps of a run that has ended.

The parts are measured: a decoding step's seconds by its rows, on both models at once in this process, by a straight
line through 1 and `--rows` rows, and the seconds of a prompt's token; learning and what else a step takes, as the
median of the run's own steps. The lengths of the turns are those that the run logged (`longshort.log_groups`; drawn
again with replacement where it logged some groups only), and those of the prompts its means. What is predicted is the
generation of each step, and the step.

    python benchmarks/step_model.py runs/tiny/pair --long runs/tiny/sft/long --short runs/tiny/sft/short --out step.json

`--engines 2`: each policy's engine has a core of its own, as separate pools have GPUs; 1: they share one.
"""

import argparse
import asyncio
import json
import random
import statistics
import sys
import time
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from common import machine
from longshort_reward.errors import UserError
from longshort_reward.protocol import ROLES, Role
from rich.console import Console
from rich.table import Table

from verl_longshort.base.metrics_files import metrics_files
from verl_longshort.data.training_trajectories import read_steps
from verl_longshort.engines.factory import EngineSettings, open_engine
from verl_longshort.planner.step_model import Engine, StepParts, generate

TOKENS = 40
"""Of a measured request."""
SHORT_PROMPT, LONG_PROMPT = 4, 200
"""Tokens of prompts; the difference is what a prompt's token takes."""


def measured_engines(models: dict[Role, str], rows: int, rounds: int) -> dict[Role, Engine]:
    """Both engines work at the same time, as in a run."""
    rng = random.Random(0)
    with ExitStack() as engines:
        opened = {
            role: open_engine(path, EngineSettings(engine="transformers"), max_num_seqs=rows, seed=0, engines=engines)
            for role, path in models.items()
        }

        async def ask(count: int, prompt_tokens: int, tokens: int) -> dict[Role, float]:
            async def one(role: Role) -> tuple[Role, float]:
                tokenizer, engine = opened[role]
                words = sorted(set(range(len(tokenizer))) - set(tokenizer.all_special_ids))
                sampling = {"max_tokens": tokens, "min_tokens": tokens, "logprobs": True, "ignore_eos": True}
                # all of them new, so that no prefix is found in a cache
                prompts = [rng.choices(words, k=prompt_tokens) for _ in range(count)]
                begun = time.monotonic()
                await asyncio.gather(
                    *(
                        engine.generate(request_id=str(number), prompt_ids=prompt, sampling=sampling)
                        for number, prompt in enumerate(prompts)
                    )
                )
                return role, time.monotonic() - begun

            return dict(await asyncio.gather(*map(one, ROLES)))

        def best(count: int, prompt_tokens: int, tokens: int) -> dict[Role, float]:
            seen = [asyncio.run(ask(count, prompt_tokens, tokens)) for _ in range(rounds)]
            return {role: min(one[role] for one in seen) for role in ROLES}

        asyncio.run(ask(rows, SHORT_PROMPT, TOKENS))
        one, many = (best(count, SHORT_PROMPT, TOKENS) for count in (1, rows))
        brief, long = (best(rows, prompt_tokens, 1) for prompt_tokens in (SHORT_PROMPT, LONG_PROMPT))
    found = {}
    for role in ROLES:
        row_s = max(0.0, (many[role] - one[role]) / TOKENS / (rows - 1))
        prompt_token_s = max(0.0, (long[role] - brief[role]) / (rows * (LONG_PROMPT - SHORT_PROMPT)))
        found[role] = Engine(latency_s=one[role] / TOKENS - row_s, row_s=row_s, prompt_token_s=prompt_token_s)
    return found


def logged_steps(run: Path) -> dict[int, dict[str, float]]:
    """Metrics of each step; of a step that was done again, the last."""
    steps: dict[int, dict[str, float]] = {}
    for file in metrics_files(run):
        for line in map(json.loads, file.read_text(encoding="utf-8").splitlines()):
            if "timing_s/step" in line["data"]:
                steps[line["step"]] = line["data"]
    return steps


def predicted(run: Path, engines: dict[Role, Engine], *, separate: bool, trajectories: int) -> list[dict[str, float]]:
    turns: dict[int, list[list[int]]] = defaultdict(list)
    for one in read_steps(run):
        turns[one.step].append([turn.tokens for turn in one.turns])
    steps = logged_steps(run)
    # the first step of a start loads and compiles
    known = {step: seen for step, seen in steps.items() if step in turns and step > min(steps)}
    if not known:
        raise UserError("RUN", run, "has no step after its first of which trajectories were logged")
    rest = statistics.median(seen["timing_s/step"] - seen["timing_s/gen"] for seen in known.values())
    prompts = {}
    for role in ROLES:
        logged = [seen[f"{role}/prompt_length/mean"] for seen in steps.values() if f"{role}/prompt_length/mean" in seen]
        if not logged:
            raise UserError(
                "RUN", run, f"has no lengths of the {role} policy's prompts: give a run in which both learn"
            )
        prompts[role] = statistics.median(logged)
    rng = random.Random(0)
    shown = []
    for step, seen in sorted(known.items()):
        lengths = turns[step] if len(turns[step]) >= trajectories else rng.choices(turns[step], k=trajectories)
        parts = StepParts(
            trajectories=lengths,
            engines=engines,
            prompt_tokens=prompts,
            learning_gpu_s=0.0,
            together=False,
            overhead_s=0.0,
        )
        seconds, _ = generate(parts, 2 if separate else 1, separate=separate)
        shown.append(
            {
                "step": step,
                "generating_s": seen["timing_s/gen"],
                "predicted_generating_s": seconds,
                "step_s": seen["timing_s/step"],
                "predicted_step_s": seconds + rest,
            }
        )
    return shown


def errors(steps: list[dict[str, float]]) -> dict[str, float]:
    """Of the predictions, relative to what was measured: the median, with its sign, and the median without."""
    found = {}
    for name in ("generating_s", "step_s"):
        each = [one[f"predicted_{name}"] / one[name] - 1 for one in steps]
        found[f"{name}_bias"] = statistics.median(each)
        found[f"{name}_error"] = statistics.median(map(abs, each))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a run's checkpoints (trainer.default_local_dir)")
    parser.add_argument("--long", type=Path, required=True, help="the long policy's model, of any of its steps")
    parser.add_argument("--short", type=Path, required=True, help="the short policy's")
    parser.add_argument("--trajectories", type=int, default=128, help="of a step; the tiny recipe's 16 x 8")
    parser.add_argument("--engines", type=int, choices=(1, 2), default=2, help="engines that compute at the same time")
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="file for the result, JSON")
    options = parser.parse_args()
    models = {Role.LONG: str(options.long), Role.SHORT: str(options.short)}
    engines = measured_engines(models, options.rows, options.rounds)
    steps = predicted(options.run, engines, separate=options.engines == 2, trajectories=options.trajectories)
    result: dict[str, Any] = {
        "machine": machine(),
        "engines": {str(role): vars(engine) for role, engine in engines.items()},
        "errors": errors(steps),
        "steps": steps,
    }
    if options.out:
        options.out.write_text(json.dumps(result, indent=1), encoding="utf-8")
    table = Table("", "measured", "predicted", "bias", "error", title=f"seconds, medians of {len(steps)} steps")
    for name, label in (("generating_s", "generating"), ("step_s", "step")):
        medians = [statistics.median(one[key] for one in steps) for key in (name, f"predicted_{name}")]
        off = [result["errors"][f"{name}_{kind}"] for kind in ("bias", "error")]
        table.add_row(label, *(f"{seconds:.2f}" for seconds in medians), *(f"{share:+.0%}" for share in off))
    Console().print(table)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"Error: {error}")
