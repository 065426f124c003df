"""Load on `longshort serve`: as many tokens a second as an evaluation, and nothing left of clients that vanish.

One process opens the engines of a pair once, and they work in turns, so that a busy machine is as busy for both:

* for `longshort eval`: its solver, grading and record file, `--clients` answers at a time;
* for the server: `--clients` clients in a process of their own ask over HTTP, one request after the other, first
  without streams, then with.

Tokens are those that both roles generated. Then `--vanishing` clients ask for streams and close their connections
within a second, some before their answer begins; measured is how long the engines are still busy, and memory and tasks
of the server before and after.

    python benchmarks/serve_load.py --long <folder> --short <folder> --data problems.parquet --out load.json
    python benchmarks/serve_load.py … --clients 4 --seconds 2 --rounds 1 --vanishing 8     # smoke
    python benchmarks/serve_load.py … longshort.environment.prompts.long=''                # keys of config/serve.yaml
"""

import argparse
import asyncio
import gc
import itertools
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import uvicorn
from longshort_reward.protocol import ROLES

from verl_longshort.base.concurrency import run_bounded
from verl_longshort.base.journal import RecordFile
from verl_longshort.base.seeds import derived_seed
from verl_longshort.config.compose import compose_config
from verl_longshort.config.pair import plain_dict
from verl_longshort.evaluation.runner import Task, _answer
from verl_longshort.evaluation.settings import EvaluationSettings
from verl_longshort.evaluation.solvers import PairSolver
from verl_longshort.serve.http import build_app
from verl_longshort.serve.pair import PairService, open_pair
from verl_longshort.serve.server import SWITCH_S
from verl_longshort.serve.settings import ServeSettings

WARM_UP_S = 3.0
IDLE_LIMIT_S = 60.0
TIMEOUT_S = 300.0


def settings_of(options: argparse.Namespace) -> tuple[ServeSettings, EvaluationSettings]:
    """Of the server and the evaluation: the same models, limits, prompts and sampling."""
    models = [f"longshort.models.long={options.long}", f"longshort.models.short={options.short}"]
    engines = [f"longshort.max_num_seqs={max(1, options.clients // len(ROLES))}"]
    common = [
        *models,
        *engines,
        f"longshort.temperature={options.temperature}",
        "longshort.top_p=1.0",
        *options.overrides,
    ]
    own = [f"longshort.data={options.data}", "longshort.name=load", f"longshort.output_dir={tempfile.mkdtemp()}"]
    serve = compose_config("serve", [*common, f"longshort.max_waiting={options.vanishing + options.clients}"])
    evaluate = compose_config("eval", [*common, *own])
    return ServeSettings.parse(plain_dict(serve.longshort)), EvaluationSettings.parse(plain_dict(evaluate.longshort))


async def evaluated(pair: PairService, settings: EvaluationSettings, seconds: float, round_: int) -> dict[str, float]:
    """What an evaluation does in so many seconds."""
    problems = [problem for benchmark in settings.load_benchmarks() for problem in benchmark.problems]
    solver = PairSolver(settings, pair.participants)
    begin, used = time.monotonic(), time.process_time()
    tokens = answers = 0

    def tasks() -> Iterator[Task]:
        for number in itertools.count():
            if time.monotonic() - begin > seconds:
                return
            name = f"{round_}/{number}"
            yield Task(id=name, problem=problems[number % len(problems)], seed=derived_seed(0, name))

    with RecordFile(Path(settings.output_dir) / f"{round_}.jsonl", {"round": round_}) as file:

        def keep(record: Any) -> None:
            nonlocal tokens, answers
            file.append(record)
            answers += 1
            tokens += sum(record["tokens"].values())

        await run_bounded(
            tasks(),  # type: ignore[arg-type]
            lambda task: _answer(task, solver, settings),
            keep,
            limit=settings.max_num_seqs * len(ROLES),
        )
    spent = time.monotonic() - begin
    cpu = time.process_time() - used
    return {"seconds": spent, "answers": answers, "tokens": tokens, "tokens_per_s": tokens / spent, "cpu_s": cpu}


async def clients(url: str, work: str, options: argparse.Namespace, seconds: float) -> dict[str, Any]:
    """What the clients in a process of their own have seen. Meanwhile the interpreter is set as the command sets it."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_S)
    chosen = ["--data", str(options.data), "--clients", str(options.clients), "--seconds", str(seconds)]
    used = time.process_time()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, __file__, "--at", url, "--as", work, *chosen, "--vanishing", str(options.vanishing)),
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await asyncio.wait_for(process.communicate(), TIMEOUT_S)
    assert process.returncode == 0, "the clients failed"
    sys.setswitchinterval(before)
    return {**json.loads(output), "cpu_s": time.process_time() - used}


async def vanished(pair: PairService, url: str, options: argparse.Namespace) -> dict[str, Any]:
    """How long engines are busy after clients have left, and what is left of them."""

    def state() -> dict[str, float]:
        gc.collect()
        return {"mib": psutil.Process().memory_info().rss / 2**20, "tasks": len(asyncio.all_tasks())}

    def busy() -> bool:
        engines = [pair.participants[role].generate.__self__ for role in ROLES]  # type: ignore[attr-defined]
        return any(engine.stats["running"] or engine.stats["waiting"] for engine in engines) or pair.running > 0

    before, most = state(), 0
    leaving = asyncio.ensure_future(clients(url, "vanishing", options, 1.0))
    begin = time.monotonic()
    last_busy = 0.0
    seen: dict[str, Any] | None = None
    while (seen is None or busy()) and time.monotonic() - begin < IDLE_LIMIT_S:
        most = max(most, pair.running + pair.waiting)
        await asyncio.sleep(0.005)
        if busy():
            last_busy = time.time()
        if seen is None and leaving.done():
            seen = leaving.result()
    assert seen is not None, "the clients did not come back"
    assert not busy(), "the engines are still busy"
    await asyncio.sleep(1.0)
    idle = max(0.0, last_busy - seen.pop("last_left"))
    return {**seen, "most_at_once": most, "busy_after_s": idle, "before": before, "after": state()}


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    serving, evaluating = settings_of(options)
    async with open_pair(serving) as pair:
        config = uvicorn.Config(build_app(pair, serving), port=0, lifespan="off", log_level="warning", access_log=False)
        server = uvicorn.Server(config)
        running = asyncio.ensure_future(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/v1"
        await evaluated(pair, evaluating, WARM_UP_S, -1)
        await clients(url, "whole", options, WARM_UP_S)
        rounds = []
        for number in range(options.rounds):
            rounds.append(
                {
                    "load_average": psutil.getloadavg()[0],
                    "eval": await evaluated(pair, evaluating, options.seconds, number),
                    "whole": await clients(url, "whole", options, options.seconds),
                    "streamed": await clients(url, "streamed", options, options.seconds),
                }
            )
            print(json.dumps(rounds[-1]), file=sys.stderr)
        vanishing = [await vanished(pair, url, options) for _ in range(options.rounds)]
        server.should_exit = True
        await running
    return {"rounds": rounds, "ratio": ratios(rounds), "vanishing": vanishing}


def ratios(rounds: Sequence[Any]) -> dict[str, float]:
    """Tokens a second of the server relative to the evaluation: the median over rounds."""
    return {
        work: statistics.median(one[work]["tokens_per_s"] / one["eval"]["tokens_per_s"] for one in rounds)
        for work in ("whole", "streamed")
    }


# ---------------------------------------------------------------- the clients' process


async def ask(client: aiohttp.ClientSession, url: str, problem: str, *, stream: bool) -> tuple[int, float]:
    """Tokens of an answer, and seconds until its first word."""
    body = {"model": "longshort", "messages": [{"role": "user", "content": problem}], "stream": stream}
    if stream:
        body["stream_options"] = {"include_usage": True}
    begin = time.monotonic()
    async with client.post(f"{url}/chat/completions", json=body) as reply:
        reply.raise_for_status()
        if not stream:
            return int((await reply.json())["usage"]["completion_tokens"]), time.monotonic() - begin
        first, tokens = 0.0, 0
        async for line in reply.content:
            if first == 0.0 and b'"reasoning"' in line:
                first = time.monotonic() - begin
            if b'"usage"' in line:
                tokens = json.loads(line.removeprefix(b"data: "))["usage"]["completion_tokens"]
    if not tokens:
        raise ValueError("the stream broke off")
    return tokens, first


async def load(url: str, problems: Sequence[str], count: int, seconds: float, *, stream: bool) -> dict[str, Any]:
    begin = time.monotonic()
    done: list[tuple[float, float, int]] = []
    errors: list[str] = []
    options: Any = {
        "connector": aiohttp.TCPConnector(limit=count),
        "timeout": aiohttp.ClientTimeout(total=TIMEOUT_S),
    }

    async def one(number: int, client: aiohttp.ClientSession) -> None:
        rng = random.Random(number)
        while time.monotonic() - begin < seconds:
            asked = time.monotonic()
            try:
                tokens, first = await ask(client, url, rng.choice(problems), stream=stream)
            except (aiohttp.ClientError, asyncio.TimeoutError, KeyError, ValueError) as error:
                errors.append(f"{type(error).__name__}: {error}")
                continue
            done.append((time.monotonic() - asked, first, tokens))

    async with aiohttp.ClientSession(**options) as client:
        await asyncio.gather(*(one(number, client) for number in range(count)))
    spent = time.monotonic() - begin
    tokens = sum(tokens for *_, tokens in done)
    lasted = sorted(seconds for seconds, *_ in done)
    first = sorted(first for _, first, _ in done)
    return {
        "seconds": spent,
        "answers": len(done),
        "tokens": tokens,
        "tokens_per_s": tokens / spent,
        "errors": len(errors),
        "first_errors": errors[:3],
        "latency_s": {"median": statistics.median(lasted), "p95": lasted[int(0.95 * len(lasted))], "most": lasted[-1]},
        "clients_cpu_s": time.process_time(),
        "first_word_s": {"median": statistics.median(first), "p95": first[int(0.95 * len(first))]} if stream else None,
    }


async def vanish(url: str, problems: Sequence[str], count: int) -> dict[str, Any]:
    """Clients that leave: at their first bytes, or after a second without any."""
    begun = 0

    async def one(number: int) -> None:
        nonlocal begun
        body = {"model": "longshort", "messages": [{"role": "user", "content": problems[number % len(problems)]}]}
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S, sock_read=1.0)
        async with aiohttp.ClientSession(timeout=timeout) as client:
            with suppress(asyncio.TimeoutError):
                async with client.post(f"{url}/chat/completions", json={**body, "stream": True}) as reply:
                    await reply.content.readany()
                    begun += 1
                    # an ordinary end would read the rest
                    reply.close()

    await asyncio.gather(*(one(number) for number in range(count)))
    return {"clients": count, "left_in_mid_answer": begun, "last_left": time.time()}


def as_clients(options: argparse.Namespace) -> dict[str, Any]:
    import pandas as pd

    problems = [row[0]["content"] for row in pd.read_parquet(options.data)["prompt"]]
    if options.work == "vanishing":
        return asyncio.run(vanish(options.at, problems, options.vanishing))
    return asyncio.run(load(options.at, problems, options.clients, options.seconds, stream=options.work == "streamed"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--long", type=Path, help="folder of the long role's model")
    parser.add_argument("--short", type=Path, help="folder of the short role's model")
    parser.add_argument("--data", type=Path, required=True, help="problems in verl's RL format (parquet)")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each work in each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--vanishing", type=int, default=200)
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--out", type=Path, help="file for the result")
    parser.add_argument("--at", help=argparse.SUPPRESS)
    parser.add_argument("--as", dest="work", help=argparse.SUPPRESS)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="of the server and the evaluation")
    options = parser.parse_args()
    result = as_clients(options) if options.at else asyncio.run(measure(options))
    text = json.dumps(result, indent=None if options.at else 1)
    if options.out:
        options.out.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
