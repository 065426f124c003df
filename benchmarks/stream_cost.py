"""Processor time of a streamed token in `longshort serve`, without a model's.

The pair's engines are stand-ins: a turn is a text that is known beforehand, and each of its tokens is a piece of its
own, given one turn of the event loop after the other. Everything else is the server's: tokenizer, turn loop, channels,
HTTP. The clients run in a process of their own, so that `time.process_time` here is the server's. What a stream costs
beyond a whole answer is that of its pieces.

    python benchmarks/stream_cost.py --out cost.json
    python benchmarks/stream_cost.py --tokenizer <folder>                           # instead of the miniature world's
    python benchmarks/stream_cost.py --clients 2 --answers 1 --rounds 1             # smoke
    python benchmarks/stream_cost.py --profile profile.txt                          # functions of one round of streams
"""

import argparse
import asyncio
import cProfile
import json
import pstats
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import uvicorn
from longshort_reward.protocol import ANSWER_CLOSE, ANSWER_OPEN, ROLES, THINK_CLOSE, THINK_OPEN, Role, RolePrompts

from verl_longshort.config.compose import compose_config
from verl_longshort.config.pair import plain_dict
from verl_longshort.core.environment import Limits
from verl_longshort.core.trajectory import Generation, Participant
from verl_longshort.core.watching import Piece
from verl_longshort.serve.http import build_app
from verl_longshort.serve.pair import PairService
from verl_longshort.serve.settings import ServeSettings
from verl_longshort.world.tiny_tokenizer import build_tokenizer

QUESTION = "2 + 3 ?"
WORDS = "so 2 + 3 = 5 ; "
TIMEOUT_S = 600.0


@dataclass(frozen=True)
class KnownTurn:
    """An engine that always says the same."""

    token_ids: list[int]

    async def generate(self, **_: Any) -> Generation:
        """All of it at once."""
        return Generation(token_ids=self.token_ids, logprobs=None, finish_reason="stop")

    async def stream(self, *, on_piece: Callable[[Piece], None], **_: Any) -> Generation:
        """The same, token by token."""
        for token in self.token_ids:
            on_piece([token])
            await asyncio.sleep(0)
        return await self.generate()


def a_pair(tokenizer: Any, thought_words: int, clients: int) -> PairService:
    words = (WORDS * thought_words).split()[:thought_words]
    turns = {
        Role.LONG: f"{THINK_OPEN} {' '.join(words)} {THINK_CLOSE}",
        Role.SHORT: f"{ANSWER_OPEN} 5 {ANSWER_CLOSE}",
    }
    participants = {}
    for role, text in turns.items():
        engine = KnownTurn(tokenizer.encode(text, add_special_tokens=False))
        participants[role] = Participant(tokenizer=tokenizer, generate=engine.generate, stream=engine.stream)
    most = 10 * thought_words + 100
    return PairService(
        participants,
        limits=Limits(max_turns=4, long_turn_tokens=most, short_turn_tokens=most, token_budget=2 * most),
        prompts=RolePrompts(long="", short=""),
        sampling={"temperature": 1.0, "top_p": 1.0},
        at_once=clients,
        may_wait=clients,
        timeout_s=TIMEOUT_S,
    )


def server_settings() -> ServeSettings:
    """The defaults; the models that they have to name are never asked."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "config.json").write_text("{}", encoding="utf-8")
        models = [f"longshort.models.{role}={folder}" for role in ROLES]
        servers = [f"longshort.endpoint.base_url.{role}=http://127.0.0.1:1" for role in ROLES]
        return ServeSettings.parse(plain_dict(compose_config("serve", [*models, *servers]).longshort))


async def clients(url: str, options: argparse.Namespace, *, stream: bool) -> dict[str, Any]:
    """Tokens, pieces and processor time of the server for a round of answers."""
    used = time.process_time()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, __file__, "--at", url, "--clients", str(options.clients)),
        *("--answers", str(options.answers), *(["--stream"] if stream else [])),
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await asyncio.wait_for(process.communicate(), TIMEOUT_S)
    assert process.returncode == 0, "the clients failed"
    cpu = time.process_time() - used
    seen = json.loads(output)
    return {**seen, "cpu_s": cpu, "cpu_ms_per_1000_tokens": 1e6 * cpu / seen["tokens"]}


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    if options.tokenizer is None:
        tokenizer: Any = build_tokenizer()
    else:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(options.tokenizer)
    pair = a_pair(tokenizer, options.thought_words, options.clients)
    app = build_app(pair, server_settings())
    config = uvicorn.Config(app, port=0, lifespan="off", log_level="warning", access_log=False)
    server = uvicorn.Server(config)
    running = asyncio.ensure_future(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/v1"
    await clients(url, options, stream=True)
    rounds = []
    for _ in range(options.rounds):
        whole = await clients(url, options, stream=False)
        streamed = await clients(url, options, stream=True)
        rounds.append({"whole": whole, "streamed": streamed})
        print(json.dumps(rounds[-1]), file=sys.stderr)
    if options.profile:
        profile = cProfile.Profile()
        profile.enable()
        await clients(url, options, stream=True)
        profile.disable()
        with options.profile.open("w") as file:
            pstats.Stats(profile, stream=file).sort_stats("tottime").print_stats(60)
    server.should_exit = True
    await running
    costs = {work: [one[work]["cpu_ms_per_1000_tokens"] for one in rounds] for work in ("whole", "streamed")}
    return {"rounds": rounds, "cpu_ms_per_1000_tokens": {work: statistics.median(of) for work, of in costs.items()}}


async def ask(url: str, options: argparse.Namespace) -> dict[str, Any]:
    """As the clients' process: each client asks for one answer after the other."""
    tokens = pieces = 0
    body: dict[str, Any] = {"model": "longshort", "messages": [{"role": "user", "content": QUESTION}]}
    if options.stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}

    async def one(client: aiohttp.ClientSession) -> None:
        nonlocal tokens, pieces
        for _ in range(options.answers):
            async with client.post(f"{url}/chat/completions", json=body) as reply:
                reply.raise_for_status()
                text = await reply.read()
            events = [line.removeprefix(b"data: ") for line in text.split(b"\n\n")] if options.stream else [text]
            whole = next(event for event in reversed(events) if b'"usage"' in event)
            tokens += json.loads(whole)["usage"]["completion_tokens"]
            pieces += len(events)

    connector = aiohttp.TCPConnector(limit=options.clients)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=TIMEOUT_S)) as client:
        await asyncio.gather(*(one(client) for _ in range(options.clients)))
    return {"tokens": tokens, "pieces": pieces}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", type=Path, help="folder; without: the miniature world's")
    parser.add_argument("--thought-words", type=int, default=200)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--answers", type=int, default=2, help="of each client in a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--profile", type=Path, help="file for the functions of one more round")
    parser.add_argument("--out", type=Path, help="file for the result")
    parser.add_argument("--at", help=argparse.SUPPRESS)
    parser.add_argument("--stream", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    result = asyncio.run(ask(options.at, options) if options.at else measure(options))
    text = json.dumps(result, indent=None if options.at else 1)
    if options.out:
        options.out.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
