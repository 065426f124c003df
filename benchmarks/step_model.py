"""How well the planner's simulation predicts the steps of a run that has ended.

The parts are measured: a decoding step's seconds by its rows, on both models at once in this process, by a straight
line through 1 and `--rows` rows; learning and what else a step takes, as the median of the run's own steps. The lengths
of the turns are those that the run logged (`longshort.log_groups`; drawn again with replacement where it logged some
groups only). What is predicted is the generation of each step, and the step.

    python benchmarks/step_model.py runs/tiny/pair --long runs/tiny/sft/long --short runs/tiny/sft/short --out step.json

`--engines 2`: each policy's engine has a core of its own, as separate pools have GPUs; 1: they share one.
"""

import argparse
import asyncio
import json
import random
import statistics
import time
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from common import machine
from longshort_reward.protocol import ROLES, Role
from rich.console import Console
from rich.table import Table

from verl_longshort.base.metrics_files import metrics_files
from verl_longshort.data.training_trajectories import read_steps
from verl_longshort.engines.factory import EngineSettings, open_engine
from verl_longshort.planner.step_model import Engine, StepParts, generate

TOKENS = 40
"""Of a measured request."""


def measured_engines(models: dict[Role, str], rows: int, rounds: int) -> dict[Role, Engine]:
    """Both engines decode at the same time, as in a run."""
    with ExitStack() as engines:
        opened = {
            role: open_engine(path, EngineSettings(engine="transformers"), max_num_seqs=rows, seed=0, engines=engines)
            for role, path in models.items()
        }

        async def decode(count: int) -> dict[Role, float]:
            async def one(role: Role) -> tuple[Role, float]:
                tokenizer, engine = opened[role]
                prompt = tokenizer.encode("so 3 + 4", add_special_tokens=False)
                sampling = {"max_tokens": TOKENS, "min_tokens": TOKENS, "logprobs": True, "ignore_eos": True}
                begun = time.monotonic()
                await asyncio.gather(
                    *(engine.generate(request_id=str(n), prompt_ids=prompt, sampling=sampling) for n in range(count))
                )
                return role, (time.monotonic() - begun) / TOKENS

            return dict(await asyncio.gather(*map(one, ROLES)))

        asyncio.run(decode(rows))
        few, many = ([asyncio.run(decode(count)) for _ in range(rounds)] for count in (1, rows))
    best = {role: [min(one[role] for one in some) for some in (few, many)] for role in ROLES}
    slope = {role: max(0.0, (many - few) / (rows - 1)) for role, (few, many) in best.items()}
    return {role: Engine(latency_s=best[role][0] - slope[role], row_s=slope[role]) for role in ROLES}


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
    rest = statistics.median(seen["timing_s/step"] - seen["timing_s/gen"] for seen in known.values())
    rng = random.Random(0)
    shown = []
    for step, seen in sorted(known.items()):
        lengths = turns[step] if len(turns[step]) >= trajectories else rng.choices(turns[step], k=trajectories)
        parts = StepParts(trajectories=lengths, engines=engines, learning_gpu_s=0.0, together=False, overhead_s=0.0)
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
    main()
