r"""Early stopping without training: a long chain of thought is cut where its answer has settled.

After each thought the model is asked for its answer at once (a *probe*: `</think>` and so on are written for
it, and it goes on greedily). When enough probes in a row give the same answer, the chain ends there and the
last probe is the answer. A chain that never settles runs to its own end.

The probes are paid for: the record's tokens are `single`, the chain and its answer, and `probes`, what the
probes that did not end the chain cost; both count against the token budget. Text written for the model (its
opening tag, a probe) counts like text it wrote. Reading the chain again for a probe costs time, not tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from longshort_reward.answer import last_boxed
from longshort_reward.protocol import ANSWER_CLOSE, THINK_CLOSE, THINK_OPEN

from verl_longshort.base.files import Record
from verl_longshort.core.role_view import Tokenizer, decode_turn, render_prompt
from verl_longshort.core.single_model import opening_ids
from verl_longshort.core.trajectory import Generate
from verl_longshort.evaluation.settings import EarlyStop, EvaluationSettings

EARLY = "early_stop"
"""The stop reason of a chain that was cut."""


@dataclass(frozen=True, kw_only=True)
class Probe:
    """An answer asked for in the middle of a chain."""

    token_ids: list[int]
    """What was written for the model and what it wrote."""
    answer: str | None
    r"""Content of the `\boxed{}`; None when there is no complete one."""


@dataclass(kw_only=True)
class _Chain:
    """A chain while it is written."""

    problem: str
    seed: int
    prompt: list[int]
    written: list[int]
    probes: list[Probe] = field(default_factory=list)
    stop_reason: str = ""

    @property
    def probe_tokens(self) -> int:
        """Tokens of the probes; one that ended the chain is part of the chain instead."""
        counted = self.probes[:-1] if self.stop_reason == EARLY else self.probes
        return sum(len(probe.token_ids) for probe in counted)


def settled(answers: Sequence[str | None], agree: int) -> bool:
    """Whether the last `agree` answers are there and the same, apart from white space."""
    last = ["".join(answer.split()) for answer in answers[-agree:] if answer is not None]
    return len(last) == agree and len(set(last)) == 1


@dataclass(frozen=True)
class EarlyStopSolver:
    """One model writes a long chain of thought, which is cut where its answer has settled."""

    settings: EvaluationSettings
    early_stop: EarlyStop
    tokenizer: Tokenizer
    generate: Generate

    async def __call__(self, problem: str, *, seed: int) -> Record:
        """Solve one problem; `seed` decides what is sampled."""
        prompt = render_prompt(self.tokenizer, self.settings.system_prompt, problem)
        opening = opening_ids(self.tokenizer, prompt, THINK_OPEN)
        chain = _Chain(problem=problem, seed=seed, prompt=prompt, written=opening)
        while not chain.stop_reason:
            await self._think(chain)
        text = ("" if opening else THINK_OPEN) + decode_turn(self.tokenizer, chain.written)
        return {
            "problem": problem,
            "turns": [{"role": "single", "text": text, "tokens": len(chain.written)}],
            "text": text,
            "stop_reason": chain.stop_reason,
            "tokens": {"single": len(chain.written), "probes": chain.probe_tokens},
            "probe_answers": [probe.answer for probe in chain.probes],
            "rethinks": 0,
        }

    async def _think(self, chain: _Chain) -> None:
        """Write one more thought, and ask for the answer behind it."""
        text, reason = await self._write(chain, [*self.early_stop.boundaries, THINK_CLOSE, ANSWER_CLOSE])
        goes_on = reason == "stop" and ANSWER_CLOSE not in text
        if goes_on and THINK_CLOSE not in text and any(boundary in text for boundary in self.early_stop.boundaries):
            await self._probe(chain)
            return
        if goes_on and THINK_CLOSE in text:
            # The chain has come to its own end: the rest is the answer.
            text, reason = await self._write(chain, [ANSWER_CLOSE])
        chain.stop_reason = "answered" if ANSWER_CLOSE in text else reason

    async def _write(self, chain: _Chain, stops: list[str]) -> tuple[str, str]:
        """Continue the chain; the new text, and why it ends."""
        if self._left(chain) <= 0:
            return "", "length"
        made = await self.generate(
            request_id=f"{chain.seed}-{chain.problem}",
            prompt_ids=chain.prompt + chain.written,
            sampling={
                "temperature": self.settings.temperature,
                "top_p": self.settings.top_p,
                "seed": chain.seed,
                "stop": stops,
                "max_tokens": self._left(chain),
            },
        )
        chain.written = chain.written + made.token_ids
        return decode_turn(self.tokenizer, made.token_ids), made.finish_reason

    async def _probe(self, chain: _Chain) -> None:
        asking = self.tokenizer.encode(self.early_stop.probe, add_special_tokens=False)
        room = self._left(chain) - len(asking)
        if room <= 0:
            return
        made = await self.generate(
            request_id=f"{chain.seed}-{chain.problem}-probe",
            prompt_ids=chain.prompt + chain.written + asking,
            sampling={
                "temperature": 0.0,
                "top_p": 1.0,
                "stop": [ANSWER_CLOSE],
                "max_tokens": min(room, self.early_stop.probe_tokens),
            },
        )
        token_ids = asking + made.token_ids
        answer = last_boxed(decode_turn(self.tokenizer, token_ids))
        chain.probes.append(Probe(token_ids=token_ids, answer=answer))
        if settled([probe.answer for probe in chain.probes], self.early_stop.agree):
            chain.written = chain.written + token_ids
            chain.stop_reason = EARLY

    def _left(self, chain: _Chain) -> int:
        return self.settings.limits.token_budget - len(chain.written) - chain.probe_tokens
