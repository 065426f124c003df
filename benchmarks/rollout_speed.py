"""Joint trajectories against the same engines' own speed, and against the scheme of the paper's released code.

A pair of engines with the same model, in this process, and trajectories of ragged length: 2, 4 or 6 turns, each with a
number of tokens drawn from a log-normal distribution. Lengths are forced, so any model will do, an untrained one too;
what a turn says is put in the place of what its tokens say, and its tokens stay in the speaker's row. In turn within a
round, on the same engines, with empty caches:

* `raw`: the turns' requests and nothing else; each engine gets its own, half of `--at-once` rows at a time, the turns
  of a row in order. What an engine does when nobody waits for a partner;
* `joint`: `run_trajectory` and grading, `--at-once` trajectories at a time;
* `lock step`: as the released code samples. Batches of `--at-once`, one after the other; all first turns, then, when
  the last one is there, all second ones; a turn is asked for by the whole history as text, and nothing is kept of it.
  (vLLM keeps its prefix cache here, which helps this scheme.)
* with `--serial`, `one by one`: the same with batches of one, the first `--serial` trajectories only.

Tokens are generated ones. `prefilled again` is the share of the prompt tokens of later turns that the engine had
already computed in an earlier turn of the same row and computes again.

    python benchmarks/rollout_speed.py --out speed.json                                  # the miniature world, CPU
    python benchmarks/rollout_speed.py --model FOLDER --engine vllm --at-once 256 --trajectories 1024 --out speed.json
    python benchmarks/rollout_speed.py --trajectories 4 --at-once 2 --rounds 1            # smoke
"""

import argparse
import asyncio
import json
import random
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common import machine, miniature_model
from longshort_reward import match_answer
from longshort_reward.protocol import DEFAULT_PROMPTS, ROLES, STOP_STRINGS, Role, RolePrompts
from rich.console import Console
from rich.table import Table

from verl_longshort.base.concurrency import run_bounded
from verl_longshort.core.environment import Environment, Limits
from verl_longshort.core.role_view import Tokenizer, render_prompt
from verl_longshort.core.trajectory import Generation, Participant, run_trajectory
from verl_longshort.engines.factory import EngineSettings, open_engine

PROBLEM = "start 3 ; + 4 ?"
ANSWER = "7"
TURNS = (2, 2, 4, 6)
"""Of a trajectory, one of these at random."""
SPREAD = 0.6
"""Of the logarithm of a turn's length."""


@dataclass(frozen=True)
class Plan:
    """A trajectory: the length of each turn in tokens, and what it says."""

    number: int
    lengths: tuple[int, ...]
    texts: tuple[str, ...]


def make_plans(count: int, tokens: int, tokenizer: Tokenizer) -> list[Plan]:
    """`tokens`: of a turn, the median."""
    rng = random.Random(0)
    unit = " 3 + 4 = 7 ;"
    size = len(tokenizer.encode(unit, add_special_tokens=False))
    plans = []
    for number in range(count):
        turns = rng.choice(TURNS)
        lengths = [round(min(4 * tokens, max(8, tokens * rng.lognormvariate(0, SPREAD)))) for _ in range(turns)]
        texts = []
        for turn, length in enumerate(lengths):
            body = unit * max(1, length // size)
            last = turn == turns - 1
            opening = "<think>" if turn % 2 == 0 else "<answer>"
            closing = "</think>" if turn % 2 == 0 else rf"\boxed{{ {ANSWER} }} </answer>" if last else "</rethink>"
            texts.append(f"{opening}{body} {closing}")
        plans.append(Plan(number, tuple(lengths), tuple(texts)))
    return plans


class Said(Generation):
    """A generation whose text is the plan's; decoding its tokens takes its time all the same."""

    def decoded(self, tokenizer: Tokenizer) -> str:
        super().decoded(tokenizer)
        return str(self.extra["says"])


@dataclass
class Cache:
    """What an engine was asked for in later turns, in tokens."""

    prompts: int = 0
    again: int = 0

    @property
    def share(self) -> float:
        return self.again / max(1, self.prompts)


@dataclass
class Pair:
    """Both engines and the trajectories that they play."""

    tokenizer: Tokenizer
    engines: dict[Role, Any]
    prompts: RolePrompts
    plans: list[Plan]
    at_once: int
    cache: Cache = field(default_factory=Cache)
    asked: dict[tuple[Role, int], list[tuple[list[int], int]]] = field(default_factory=lambda: defaultdict(list))
    """Prompt and number of tokens of each request of a row, of the last joint run."""

    def forget(self) -> None:
        """Empty caches, where the engine can."""
        self.cache = Cache()
        for engine in self.engines.values():
            if hasattr(engine, "clear_kv_cache"):
                engine.clear_kv_cache()

    async def ask(self, role: Role, plan: int, prompt: list[int], tokens: int, seen: int) -> Generation:
        """A turn of so many tokens; the engine had `seen` tokens of the prompt before."""
        made = await self.engines[role].generate(
            request_id=f"{role}{plan}",
            prompt_ids=prompt,
            sampling={
                **{"max_tokens": tokens, "min_tokens": tokens, "temperature": 1.0, "logprobs": True, "seed": plan},
                "stop": list(STOP_STRINGS[role]),
                "ignore_eos": True,
            },
        )
        if seen:
            self.cache.prompts += len(prompt)
            self.cache.again += max(0, seen - made.extra["reused_tokens"])
        return made

    # ---------------------------------------------------------------- the contenders

    async def joint(self) -> None:
        """Our own loop."""
        self.asked.clear()
        limit = 10**6
        limits = Limits(max_turns=max(TURNS), long_turn_tokens=limit, short_turn_tokens=limit, token_budget=limit)
        environment = Environment(limits)

        def speaks(role: Role) -> Callable[..., Coroutine[Any, Any, Generation]]:
            async def generate(*, request_id: str, prompt_ids: list[int], sampling: dict[str, Any]) -> Generation:
                plan = self.plans[sampling["seed"]]
                before = self.asked[role, plan.number]
                turn = 2 * len(before) + ROLES.index(role)
                seen = len(before[-1][0]) + before[-1][1] - 1 if before else 0
                before.append((prompt_ids, plan.lengths[turn]))
                made = await self.ask(role, plan.number, prompt_ids, plan.lengths[turn], seen)
                extra = {**made.extra, "says": plan.texts[turn]}
                return Said(token_ids=made.token_ids, logprobs=made.logprobs, finish_reason="stop", extra=extra)

            return generate

        models = {role: Participant(tokenizer=self.tokenizer, generate=speaks(role), kept_prompts=64) for role in ROLES}

        async def one(plan: Plan) -> bool:
            sampling = {"temperature": 1.0, "seed": plan.number}
            ended = await run_trajectory(PROBLEM, models, environment, self.prompts, sampling)
            return await asyncio.to_thread(match_answer, ended.state.final_text, ANSWER)

        right: list[bool] = []
        await run_bounded(self.plans, one, right.append, limit=self.at_once)
        assert all(right), "a trajectory did not go as planned"

    async def raw(self) -> None:
        """The requests of the last joint run."""

        async def row(key: tuple[Role, int]) -> None:
            seen = 0
            for prompt, tokens in self.asked[key]:
                await self.ask(*key, prompt, tokens, seen)
                seen = len(prompt) + tokens - 1

        async def engine(role: Role) -> None:
            keys = [key for key in self.asked if key[0] is role]
            await run_bounded(keys, row, lambda _: None, limit=max(1, self.at_once // 2))

        await asyncio.gather(*(engine(role) for role in ROLES))

    async def lock_step(self, plans: Sequence[Plan], size: int) -> None:
        """Batch after batch, turn after turn, text in and text out."""

        async def turn(role: Role, plan: Plan, number: int) -> None:
            history = " ".join(plan.texts[:number])
            prompt = render_prompt(self.tokenizer, self.prompts.for_role(role), PROBLEM)
            prompt += self.tokenizer.encode(history, add_special_tokens=False) if history else []
            seen = len(prompt) if number > 1 else 0
            made = await self.ask(role, plan.number, prompt, plan.lengths[number], seen)
            made.decoded(self.tokenizer)

        for start in range(0, len(plans), size):
            batch = plans[start : start + size]
            for number in range(max(TURNS)):
                for engine in self.engines.values():
                    if hasattr(engine, "clear_kv_cache"):
                        engine.clear_kv_cache()
                speakers = [plan for plan in batch if number < len(plan.lengths)]
                await asyncio.gather(*(turn(ROLES[number % 2], plan, number) for plan in speakers))
            for plan in batch:
                match_answer("".join(plan.texts), ANSWER)


def measure(pair: Pair, rounds: int, serial: int) -> dict[str, list[dict[str, float]]]:
    """Each contender's rounds; the first, which warms up, is left out."""
    some = pair.plans[:serial]
    contenders: dict[str, tuple[Callable[[], Coroutine[Any, Any, None]], Sequence[Plan]]] = {
        "joint": (pair.joint, pair.plans),
        "raw": (pair.raw, pair.plans),
        "lock step": (lambda: pair.lock_step(pair.plans, pair.at_once), pair.plans),
    }
    if serial:
        contenders["one by one"] = (lambda: pair.lock_step(some, 1), some)
    seen: dict[str, list[dict[str, float]]] = defaultdict(list)
    for number in range(rounds + 1):
        for name, (run, plans) in contenders.items():
            pair.forget()
            begun, used = time.monotonic(), time.process_time()
            asyncio.run(run())
            seconds, cpu = time.monotonic() - begun, time.process_time() - used
            tokens = sum(sum(plan.lengths) for plan in plans)
            if number:
                seen[name].append(
                    {
                        "tokens": tokens,
                        "seconds": seconds,
                        "tokens_per_s": tokens / seconds,
                        "cpu_ms_per_token": 1000 * cpu / tokens,
                        "prefilled_again": pair.cache.share,
                    }
                )
    return seen


def ratios(seen: dict[str, list[dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Medians over the rounds, and of joint over the other within a round."""
    shown = {}
    for name, rounds in seen.items():
        shown[name] = {key: statistics.median(one[key] for one in rounds) for key in rounds[0]}
        for key, measured in (("joint_is_faster", "tokens_per_s"), ("joint_takes_cpu", "cpu_ms_per_token")):
            pairs = zip(seen["joint"], rounds, strict=True)
            shown[name][key] = statistics.median(ours[measured] / theirs[measured] for ours, theirs in pairs)
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="folder of the model of both roles; the miniature world's")
    parser.add_argument("--engine", default="transformers", help="transformers or vllm")
    parser.add_argument("--gpu-memory-utilization", type=float, help="of each engine; half of 0.9")
    parser.add_argument("--trajectories", type=int, default=128)
    parser.add_argument("--at-once", type=int, default=64)
    parser.add_argument("--turn-tokens", type=int, default=40, help="the median of a turn")
    parser.add_argument("--serial", type=int, default=0, help="trajectories that are also sampled one by one")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="file for the result, JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as engines:
        settings = EngineSettings(engine=options.engine, gpu_memory_utilization=options.gpu_memory_utilization)
        opened = {
            role: open_engine(
                str(options.model or miniature_model(Path(folder))),
                settings,
                max_num_seqs=options.at_once,
                seed=0,
                engines=engines,
                engines_of_command=len(ROLES),
            )
            for role in ROLES
        }
        tokenizer = opened[Role.LONG][0]
        pair = Pair(
            tokenizer=tokenizer,
            engines={role: engine for role, (_, engine) in opened.items()},
            prompts=DEFAULT_PROMPTS if options.model else RolePrompts(long="", short=""),
            plans=make_plans(options.trajectories, options.turn_tokens, tokenizer),
            at_once=options.at_once,
        )
        seen = measure(pair, options.rounds, options.serial)
    result = {
        "machine": machine(),
        "sizes": {key: str(value) for key, value in vars(options).items() if key != "out"},
        "medians": ratios(seen),
        "rounds": seen,
    }
    if options.out:
        options.out.write_text(json.dumps(result, indent=1), encoding="utf-8")
    title = f"{options.trajectories} trajectories, {options.at_once} at once, {options.engine}"
    headings = ("", "tokens/s", "joint is x as fast", "cpu ms/token", "joint takes x cpu", "prefilled again")
    table = Table(*headings, title=title)
    for name, one in result["medians"].items():
        speed, share = f"{one['tokens_per_s']:.0f}", f"{one['prefilled_again']:.1%}"
        cpu = f"{one['cpu_ms_per_token']:.3f}", f"{one['joint_takes_cpu']:.2f}"
        table.add_row(name, speed, f"{one['joint_is_faster']:.2f}", *cpu, share)
    Console().print(table)


if __name__ == "__main__":
    main()
