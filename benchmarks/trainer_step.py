"""A step of the pair's trainer in which one policy learns, against a step of plain verl GRPO with as many tokens.

Both are real runs, one after the other, on a CPU with the engine `transformers`: Ray, TransferQueue, FSDP.

* `pair`: `longshort train longshort.schedule=[long]`.
* `verl`: `python -m verl.trainer.main_ppo`: verl's own trainer, data set and reward workers, with the reward
  `longshort_reward.compute_score`. One model, the long policy, writes every row in one turn. Its lengths are drawn from
  those of the pair's joint trajectories, so that as many tokens are generated and rows that learn are as long.

A pair generates on two engines, turn by turn, and verl on one, so generation is not the same work; what follows it is,
and has a line of its own. Seconds are medians over the steps after the first two.

    python benchmarks/trainer_step.py --long SFT/long --short SFT/short --data world/train.parquet --out step.json
    python benchmarks/trainer_step.py ... --steps 3 --problems 4                                  # smoke
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from common import machine
from given_length import LENGTHS
from rich.console import Console
from rich.table import Table

from verl_longshort.data.training_trajectories import read_steps

WARM_UP = 2
BUDGET = 320
"""Tokens of a joint trajectory, and of a row."""
LOOP = "- name: given_length\n  _target_: given_length.GivenLengthLoop\n"
PARTS = {
    "generation": "gen",
    "log-probs": "old_log_prob",
    "update": "update_actor",
    "weights": "update_weights",
}
"""Of a step -> verl's timer."""
SILENT_S = 900
"""Without a new step, after which a run is ended."""


@dataclass(frozen=True)
class Trainer:
    """One of the two, its command and where its metrics have its timers."""

    command: Sequence[str]
    prefix: str
    """Of the timers and counts of the policy that learns."""


def settings(data: Path, problems: int, steps: int, folder: Path) -> list[str]:
    """Of both: those of the tiny recipe, but for one update a step."""
    return [
        f"data.train_files={data}",
        f"data.val_files={data}",
        f"data.train_batch_size={problems}",
        "data.max_prompt_length=64",
        "actor_rollout_ref.rollout.n=8",
        "actor_rollout_ref.rollout.temperature=1.0",
        "actor_rollout_ref.rollout.max_num_seqs=128",
        f"actor_rollout_ref.actor.ppo_mini_batch_size={problems}",
        "actor_rollout_ref.actor.use_dynamic_bsz=true",
        "actor_rollout_ref.actor.use_kl_loss=false",
        "actor_rollout_ref.actor.optim.lr=1e-4",
        "algorithm.norm_adv_by_std_in_grpo=false",
        "trainer.save_freq=-1",
        "trainer.test_freq=-1",
        "trainer.val_before_train=false",
        "trainer.logger=[console,file]",
        f"trainer.default_local_dir={folder / 'checkpoints'}",
        f"longshort.steps_per_round={steps}",
    ]


def pair(common: Sequence[str], long: Path, short: Path) -> Trainer:
    """The pair's trainer."""
    return Trainer(
        command=[
            *(sys.executable, "-m", "verl_longshort.cli", "train", "device=cpu", *common),
            f"longshort.policies.long.actor_rollout_ref.model.path={long}",
            f"longshort.policies.short.actor_rollout_ref.model.path={short}",
            "longshort.schedule=[long]",
            "longshort.log_groups=all",
            "longshort.environment.max_turns=8",
            "longshort.environment.long_turn_tokens=128",
            "longshort.environment.short_turn_tokens=64",
            f"longshort.environment.token_budget={BUDGET}",
            "longshort.environment.prompts.long=",
            "longshort.environment.prompts.short=",
        ],
        prefix="long/",
    )


def plain(common: Sequence[str], model: Path, steps: int, folder: Path) -> Trainer:
    """verl's."""
    loops = folder / "loops.yaml"
    loops.write_text(LOOP)
    return Trainer(
        command=[
            *(sys.executable, "-m", "verl.trainer.main_ppo", "hydra.searchpath=[pkg://verl_longshort.config]"),
            *("+device=cpu", *(key for key in common if not key.startswith("longshort."))),
            f"hydra.run.dir={folder / 'hydra'}",
            "algorithm.adv_estimator=grpo",
            f"actor_rollout_ref.model.path={model}",
            f"critic.model.path={model}",
            f"critic.model.tokenizer_path={model}",
            f"data.max_response_length={BUDGET}",
            "actor_rollout_ref.rollout.log_prob_use_dynamic_bsz=true",
            "actor_rollout_ref.rollout.agent.default_agent_loop=given_length",
            f"actor_rollout_ref.rollout.agent.agent_loop_config_path={loops}",
            "reward.custom_reward_function.path=pkg://longshort_reward",
            "reward.custom_reward_function.name=compute_score",
            "trainer.resume_mode=disable",
            f"trainer.total_training_steps={steps}",
        ],
        prefix="",
    )


def run(trainer: Trainer, folder: Path, lengths: Path) -> tuple[float, list[Mapping[str, float]]]:
    """Seconds from the command to its first step, and the metrics of its steps.

    Raises RuntimeError with the end of its output when it fails or makes no step for `SILENT_S`.
    """
    metrics, log, here = folder / "metrics.jsonl", folder / "log.txt", Path(__file__).parent
    paths = [str(here), str(here.parent), str(here.parent / "reward"), os.environ.get("PYTHONPATH", "")]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "VERL_FILE_LOGGER_PATH": str(metrics),
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        LENGTHS: str(lengths),
    }

    def steps() -> list[Mapping[str, float]]:
        found = sorted((folder / "checkpoints").glob("metrics.*.jsonl")) or [metrics]
        lines = found[-1].read_text().splitlines() if found[-1].exists() else []
        return [row for row in (json.loads(line)["data"] for line in lines) if "timing_s/step" in row]

    begun = heard = time.monotonic()
    first, known = None, 0
    with log.open("wb") as sink:
        started = subprocess.Popen(trainer.command, env=environment, stdout=sink, stderr=subprocess.STDOUT)
        while started.poll() is None and time.monotonic() - heard < SILENT_S:
            time.sleep(0.1)
            seen = steps()
            if len(seen) > known:
                known, heard = len(seen), time.monotonic()
                first = heard - begun - seen[0]["timing_s/step"] if first is None else first
        if silent := started.poll() is None:
            # interrupted first: both trainers end Ray then
            started.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                started.wait(timeout=60)
            started.kill()
            started.wait()
    if silent or started.returncode or first is None:
        raise RuntimeError(f"{' '.join(trainer.command[:4])} failed:\n{log.read_text(errors='replace')[-4000:]}")
    return first, steps()


def measured(trainer: Trainer, folder: Path, lengths: Path) -> dict[str, float]:
    """Seconds of the start, of a step and its parts, and tokens of the rows that learned, medians over the steps."""
    start, all_steps = run(trainer, folder, lengths)
    steps, prefix = all_steps[WARM_UP:], trainer.prefix

    def value(step: Mapping[str, float], timer: str) -> float:
        return step.get(f"{prefix}timing_s/{timer}", step.get(f"timing_s/{timer}", 0.0))

    parts = {name: [value(one, timer) for one in steps] for name, timer in PARTS.items()}
    whole = [one["timing_s/step"] for one in steps]
    parts["step"] = whole
    parts["all but generation"] = [all_of - gen for all_of, gen in zip(whole, parts["generation"], strict=True)]
    parts["tokens of rows"] = [one[f"{prefix}perf/total_num_tokens"] for one in steps]
    return {"start": start, **{name: statistics.median(values) for name, values in parts.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--long", type=Path, required=True, help="folder of the long policy's model")
    parser.add_argument("--short", type=Path, required=True, help="folder of the short policy's model")
    parser.add_argument("--data", type=Path, required=True, help="problems in verl's format")
    parser.add_argument("--problems", type=int, default=16, help="of a step, with 8 trajectories each")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=1, help="of both runs")
    parser.add_argument("--out", type=Path, help="file for the result, JSON")
    asked = parser.parse_args()

    seen: list[dict[str, dict[str, float]]] = []
    for _ in range(asked.rounds):
        with tempfile.TemporaryDirectory(prefix="longshort-step-") as temporary:
            first, second = Path(temporary, "pair"), Path(temporary, "verl")
            for folder in (first, second):
                folder.mkdir()
            lengths = Path(temporary, "lengths.json")
            ours = pair(settings(asked.data, asked.problems, asked.steps, first), asked.long, asked.short)
            pair_took = measured(ours, first, lengths)
            lengths.write_text(json.dumps([sum(one.tokens.values()) for one in read_steps(first / "checkpoints")]))
            own = settings(asked.data, asked.problems, asked.steps, second)
            theirs = plain(own, asked.long, asked.steps, second)
            seen.append({"pair": pair_took, "verl": measured(theirs, second, lengths)})

    table = Table("", "pair", "verl", "pair / verl", title="seconds")
    ratios = {}
    for name in seen[0]["pair"]:
        ours_s, theirs_s = (statistics.median(one[who][name] for one in seen) for who in ("pair", "verl"))
        ratios[name] = statistics.median(one["pair"][name] / one["verl"][name] for one in seen)
        table.add_row(name, f"{ours_s:.2f}", f"{theirs_s:.2f}", f"{ratios[name]:.2f}")
    Console().print(table)
    if asked.out:
        asked.out.write_text(json.dumps({"machine": machine(), "rounds": seen, "ratios": ratios}, indent=1))


if __name__ == "__main__":
    main()
