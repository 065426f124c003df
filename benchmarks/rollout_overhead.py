"""What the rollout of a pair costs beside its engines: an engine that answers at once, everything else as in training.

Two ways, in turn within a round, with as many trajectories at once as `--counts` says:

* `loop`: `run_trajectory` and the grading of the answer, which training and evaluation share;
* `verl`: the agent loop as verl's worker drives it, for every trajectory: Hydra makes a loop object, the loop runs, and
  the worker makes rows of what it returns. Without Ray, and the rows go nowhere instead of into TransferQueue.

Seconds are of processor time, best of the rounds; one more run of the largest number up to 256 says where they go. With
`--workers` as many processes share the largest number of trajectories, and seconds of the clock say how that grows.

    python benchmarks/rollout_overhead.py --out overhead.json                # the miniature world's tokenizer
    python benchmarks/rollout_overhead.py --model FOLDER --out overhead.json # a model's, and the package's prompts
    python benchmarks/rollout_overhead.py --counts 16 --rounds 1 --workers 1 # smoke
"""

import argparse
import asyncio
import itertools
import json
import multiprocessing
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from common import machine, miniature_model
from longshort_reward import match_answer
from longshort_reward.protocol import ROLES, Role
from omegaconf import OmegaConf
from rich.console import Console
from rich.table import Table

from verl_longshort.config.compose import compose_config
from verl_longshort.config.pair import settings_of
from verl_longshort.core.environment import Environment
from verl_longshort.core.role_view import Tokenizer
from verl_longshort.core.trajectory import run_trajectory

PROBLEM = "start 3 ; + 4 ?"
ANSWER = "7"
PROFILED = 256
WAYS = ("loop", "verl")


@dataclass(frozen=True, kw_only=True)
class Load:
    """A pair's models and how long its trajectories are."""

    model: Path
    prompts: bool
    turns: int
    turn_tokens: int

    def config(self) -> Any:
        """A training run's configuration."""
        overrides = [
            *("device=cpu", f"longshort.environment.max_turns={max(8, self.turns)}"),
            *(f"longshort.policies.{role}.actor_rollout_ref.model.path={self.model}" for role in ROLES),
            *(f"longshort.environment.{role}_turn_tokens={self.turn_tokens}" for role in ROLES),
            f"longshort.environment.token_budget={2 * self.turns * self.turn_tokens}",
            *(f"longshort.environment.prompts.{role}=''" for role in ROLES if not self.prompts),
        ]
        return compose_config("longshort_trainer", overrides, unused=("data.", "reward."))


def replies(tokenizer: Tokenizer, tokens: int) -> dict[str, list[int]]:
    """Token ids of a thought, of an answer that asks for another one, and of a final answer."""

    def filled(opening: str, end: str) -> list[int]:
        words = " so 3 + 4 = 7 ;"
        ends = tokenizer.encode(f" {end}", add_special_tokens=False)
        text = tokenizer.encode(opening + words * tokens, add_special_tokens=False)
        return [*text[: tokens - len(ends)], *ends]

    return {
        "thought": filled("<think>", "</think>"),
        "rethink": filled("<answer>", "</rethink>"),
        "answer": filled("<answer>", rf"\boxed{{ {ANSWER} }} </answer>"),
    }


class Instant:
    """In place of verl's client: an engine that has its answer when the event loop comes round."""

    def __init__(self, config: Any, role: Role, load: Load, said: dict[str, list[int]]) -> None:
        self.config = config
        self._role = role
        self._load = load
        self._said = {kind: (ids, [-0.5] * len(ids)) for kind, ids in said.items()}
        self._asked: dict[str, int] = defaultdict(int)

    async def generate(self, request_id: str, *, prompt_ids: list[int], sampling_params: dict[str, Any]) -> Any:
        await asyncio.sleep(0)
        self._asked[request_id] += 1
        last = 2 * self._asked[request_id] >= self._load.turns
        kind = "thought" if self._role is Role.LONG else "answer" if last else "rethink"
        ids, logprobs = self._said[kind]
        extra = {"finish_reason": "stop", "global_steps": 0}
        return SimpleNamespace(token_ids=ids, log_probs=logprobs, extra_fields=extra, stop_reason="completed")


class Work:
    """Both ways of running trajectories, set up once."""

    def __init__(self, load: Load) -> None:
        from verl.trainer.ppo.v1 import agent_loop_tq

        from verl_longshort.verl_plugin.rollout import agent_loop  # noqa: F401 (registers the loop)
        from verl_longshort.verl_plugin.rollout.clients import PairClient, participants, tokenizer_of

        self._load = load
        self._config = load.config()
        self._settings = settings_of(self._config)
        OmegaConf.resolve(self._config.actor_rollout_ref)
        self._config.actor_rollout_ref.rollout.name = "transformers"
        model = self._config.actor_rollout_ref.model
        said = replies(tokenizer_of(model), load.turn_tokens)
        pair = PairClient(
            clients={role: Instant(self._config, role, load, said) for role in ROLES},
            model_configs=dict.fromkeys(ROLES, model),
        )
        self._participants = participants(pair)
        self._rows = 0
        agent_loop_tq.tq = SimpleNamespace(init=lambda: None, async_kv_put=_nothing, async_kv_batch_put=self._count)
        worker = agent_loop_tq.AgentLoopWorkerTQ.__ray_metadata__.modified_class
        self._worker = worker(self._config, pair)
        self._index = itertools.count()

    def run(self, way: str, count: int) -> None:
        """So many trajectories at once. Raises RuntimeError when one fails."""
        self._rows = 0
        asyncio.run(self._loops(count) if way == "loop" else self._sessions(count))
        if self._rows != 2 * count:
            raise RuntimeError(f"{self._rows} rows came out of {count} trajectories, which have two each")

    async def _loops(self, count: int) -> None:
        environment = Environment(self._settings.limits)

        async def one(number: int) -> None:
            sampling = {"temperature": 0.9, "seed": number}
            ended = await run_trajectory(PROBLEM, self._participants, environment, self._settings.prompts, sampling)
            if not await asyncio.to_thread(match_answer, ended.state.final_text, ANSWER):
                raise RuntimeError(f"a trajectory is wrong, it ended as {ended.state.stop_reason}")
            self._rows += len(ended.views)

        await asyncio.gather(*(one(number) for number in range(count)))

    async def _sessions(self, count: int) -> None:
        sampling = {"temperature": 0.9, "top_p": 1.0, "top_k": -1, "repetition_penalty": 1.0, "logprobs": True}
        size = self._config.actor_rollout_ref.rollout.n
        await asyncio.gather(
            *(
                self._worker._run_prompt(
                    {**self._row(), "__rollout_n__": min(size, count - begun)},
                    sampling,
                    {"step": 1, "sample_index": 0, "rollout_n": 0, "validate": False},
                )
                for begun in range(0, count, size)
            )
        )

    def _row(self) -> dict[str, Any]:
        number = next(self._index)
        return {
            "uid": f"{number}",
            "index": number,
            "global_steps": 1,
            "data_source": "benchmark",
            "agent_name": "longshort",
            "raw_prompt": [{"role": "user", "content": PROBLEM}],
            "reward_model": {"style": "rule", "ground_truth": ANSWER},
        }

    async def _count(self, *, keys: Sequence[str], **_: Any) -> None:
        self._rows += len(keys)


async def _nothing(**_: Any) -> None:
    pass


@dataclass
class Shares:
    """Processor seconds by what they were spent on, each without what is measured within it."""

    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    _open: list[list[float]] = field(default_factory=list)

    @contextmanager
    def measured(self, name: str) -> Iterator[None]:
        begun, within = time.thread_time(), [0.0]
        self._open.append(within)
        try:
            yield
        finally:
            self._open.pop()
            spent = time.thread_time() - begun
            self.seconds[name] += spent - within[0]
            if self._open:
                self._open[-1][0] += spent

    def timed(self, owner: Any, attribute: str, name: str) -> Any:
        """A patch of a function; a coroutine's time counts as far as it does not wait, which none of these does."""
        original = getattr(owner, attribute)

        def call(*args: Any, **kwargs: Any) -> Any:
            with self.measured(name):
                return original(*args, **kwargs)

        async def call_async(*args: Any, **kwargs: Any) -> Any:
            with self.measured(name):
                return await original(*args, **kwargs)

        return patch.object(owner, attribute, call_async if asyncio.iscoroutinefunction(original) else call)


def where_it_goes(work: Work, way: str, count: int) -> dict[str, float]:
    """Milliseconds of processor time a trajectory, by part; `grading` and what is left are of all threads."""
    import hydra
    from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

    from verl_longshort.core import environment
    from verl_longshort.core.role_view import RoleView
    from verl_longshort.verl_plugin.rollout import agent_loop

    shares, grading = Shares(), Shares()
    judge = agent_loop if way == "verl" else sys.modules[__name__]
    patches = [
        shares.timed(PreTrainedTokenizerBase, "apply_chat_template", "chat template"),
        shares.timed(PreTrainedTokenizerFast, "_encode_plus", "encoding"),
        shares.timed(PreTrainedTokenizerFast, "_decode", "decoding"),
        shares.timed(environment, "parse_turn", "parsing"),
        shares.timed(RoleView, "_append", "growing rows"),
        shares.timed(hydra.utils, "instantiate", "making the loop (Hydra, verl)"),
        shares.timed(type(work._worker), "_agent_loop_postprocess", "rows for the trainer (verl)"),
        grading.timed(judge, "match_answer", "grading"),
    ]
    for one in patches:
        one.start()
    try:
        begun = time.process_time()
        work.run(way, count)
        spent = time.process_time() - begun
    finally:
        for one in reversed(patches):
            one.stop()
    parts = {**shares.seconds, **grading.seconds}
    parts["the rest: our loop, event loop, threads"] = spent - sum(parts.values())
    return {name: 1000 * seconds / count for name, seconds in parts.items()}


def measure(load: Load, counts: Sequence[int], rounds: int) -> dict[str, Any]:
    work = Work(load)
    for way in WAYS:
        work.run(way, 8)
    best: dict[tuple[str, int], float] = defaultdict(lambda: float("inf"))
    for _, count, way in itertools.product(range(rounds), counts, WAYS):
        begun = time.process_time()
        work.run(way, count)
        best[way, count] = min(best[way, count], time.process_time() - begun)
    rows = [
        {
            "way": way,
            "trajectories": count,
            "ms_per_trajectory": 1000 * seconds / count,
            "ms_per_turn": 1000 * seconds / count / load.turns,
        }
        for (way, count), seconds in best.items()
    ]
    profiled = max(count for count in [min(counts), *counts] if count <= max(PROFILED, min(counts)))
    return {"rows": rows, "parts": {way: where_it_goes(work, way, profiled) for way in WAYS}, "profiled": profiled}


_work: Work | None = None


def _set_up(load: Load) -> None:
    global _work
    _work = Work(load)
    _work.run("verl", 8)


def _share(count: int) -> float:
    assert _work is not None
    begun = time.process_time()
    _work.run("verl", count)
    return time.process_time() - begun


def of_workers(load: Load, workers: int, count: int, rounds: int) -> dict[str, float]:
    """Best seconds of the clock in which so many processes run `count` trajectories together, set up before."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_set_up, initargs=(load,)) as pool:
        share = [count // workers] * workers
        list(pool.map(_share, share))
        best = float("inf")
        for _ in range(rounds):
            begun = time.monotonic()
            cpu = sum(pool.map(_share, share))
            best = min(best, time.monotonic() - begun)
    return {"workers": workers, "trajectories": sum(share), "seconds": best, "cpu_s": cpu}


def show(result: dict[str, Any]) -> None:
    console = Console()
    table = Table("way", "trajectories", "ms a turn", "ms a trajectory", title="processor time")
    for row in result["rows"]:
        shown = (f"{row['ms_per_turn']:.2f}", f"{row['ms_per_trajectory']:.2f}")
        table.add_row(row["way"], str(row["trajectories"]), *shown)
    console.print(table)
    table = Table("ms a trajectory", *WAYS, title=f"where it goes, {result['profiled']} trajectories")
    for part in dict.fromkeys(part for way in WAYS for part in result["parts"][way]):
        table.add_row(part, *(f"{result['parts'][way].get(part, 0.0):.2f}" for way in WAYS))
    console.print(table)
    if result["workers"]:
        table = Table("workers", "trajectories", "seconds", "cpu s", title="verl, by processes")
        for row in result["workers"]:
            table.add_row(*(f"{value:.2f}" if isinstance(value, float) else str(value) for value in row.values()))
        console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="whose tokenizer both roles have; weights are not needed")
    parser.add_argument("--counts", type=int, nargs="+", default=[64, 256, 1024, 4096])
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2, 4, 8])
    parser.add_argument("--turns", type=int, default=4, help="of a trajectory, an even number")
    parser.add_argument("--turn-tokens", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="file for the result, JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        load = Load(
            model=options.model or miniature_model(Path(folder)),
            prompts=options.model is not None,
            turns=options.turns,
            turn_tokens=options.turn_tokens,
        )
        sizes = {"turns": load.turns, "turn_tokens": load.turn_tokens, "model": str(options.model or "miniature")}
        result = {"machine": machine(), "sizes": sizes, **measure(load, options.counts, options.rounds)}
        most = max(options.counts)
        result["workers"] = [of_workers(load, one, most, options.rounds) for one in options.workers if most >= one]
    if options.out:
        options.out.write_text(json.dumps(result, indent=1), encoding="utf-8")
    show(result)


if __name__ == "__main__":
    main()
