"""The rows that are running: prefill, one decoding step for all, and what happens to finished rows.

No threads and no queues here; `scheduler.py` owns those. A row is a request with its output so far, and row i
lives in slot i of the cache: when a row leaves, the last one takes its place.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import PreTrainedModel

from verl_longshort.core.trajectory import Generation
from verl_longshort.engines.kv_cache import LayerShape, Prefixes, Slots
from verl_longshort.engines.sampling import RowRules, noise, sample
from verl_longshort.engines.sampling_params import SamplingParams
from verl_longshort.engines.stopping import StopStrings

_PREFILL_TOKENS = 8192  # padded tokens of one prefill pass, which bounds its memory
# glibc gives large blocks back to the kernel and takes them anew, one page fault per 4 KiB (those above 32 MiB always):
# a layer's intermediate states stay small enough to be used again
_PREFILL_TOKENS_CPU = 1024
_PREFILL_COLUMNS = 1024  # longer prompts go through in pieces
_NOISE_CHUNK = 64


@dataclass(kw_only=True, eq=False)
class BatchRow:
    """One request while it waits and runs."""

    request_id: str
    prompt: list[int]
    params: SamplingParams
    seed: int
    max_tokens: int
    stop_ids: frozenset[int]
    stop_strings: StopStrings
    future: "Future[Generation]" = field(default_factory=Future)
    output: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    noise: list[float] = field(default_factory=list)
    stored: int = 0
    """How many tokens of prompt + output lie in the cache."""
    reused: int = 0
    """How many of the prompt's tokens came from a kept prefix."""

    def uniform(self) -> float:
        """The random number behind the next token; 0 for a greedy row, which needs none."""
        if self.params.temperature == 0:
            return 0.0
        if len(self.output) == len(self.noise):
            self.noise += noise(self.seed, len(self.prompt) + len(self.output), _NOISE_CHUNK)
        return self.noise[len(self.output)]

    def accept(self, token: int, logprob: float) -> str | None:
        """Append a token; the finish reason if it was the last one."""
        self.output.append(token)
        self.logprobs.append(logprob)
        count = len(self.output)
        if count >= self.params.min_tokens and (
            token in self.stop_ids or self.stop_strings.completed_by_last(self.output)
        ):
            return "stop"
        return "length" if count >= self.max_tokens else None

    def generation(self, reason: str) -> Generation:
        """What the request's caller gets."""
        return Generation(
            token_ids=self.output,
            logprobs=self.logprobs if self.params.logprobs else None,
            finish_reason=reason,
            extra={"reused_tokens": self.reused},
        )


@dataclass(kw_only=True)
class Counters:
    """What a batch has done since it was made."""

    steps: int = 0
    generated_tokens: int = 0
    prefilled_tokens: int = 0
    reused_tokens: int = 0
    largest_batch: int = 0


class Batch:
    """Runs rows of different lengths together over one model.

    `finish` is called with each row that has ended, and the reason.
    """

    def __init__(self, model: PreTrainedModel, *, prefixes: Prefixes, finish: Callable[[BatchRow, str], None]) -> None:
        self._model = model
        self._device = model.device
        self._prefill_tokens = _PREFILL_TOKENS_CPU if self._device.type == "cpu" else _PREFILL_TOKENS
        self._slots = Slots(LayerShape.of(model))
        self._masked = torch.finfo(self._slots.shape.dtype).min
        self._finish = finish
        self._rules: RowRules | None = None
        self.prefixes = prefixes
        self.rows: list[BatchRow] = []
        self.counters = Counters()

    def join(self, rows: Sequence[BatchRow]) -> None:
        """Prefill new rows and sample their first tokens. If that raises, none of them is in the batch."""
        kept = {row: self.prefixes.take(row.prompt) for row in rows}
        for row, states in kept.items():
            row.stored = row.reused = 0 if states is None else states.shape[1]
        # neighbours of similar length waste little padding
        ordered = sorted(rows, key=lambda row: len(row.prompt) - row.stored)
        first = len(self.rows)
        self._slots.reserve(first + len(ordered), max(len(row.prompt) for row in ordered), kept=first)
        for index, row in enumerate(ordered, first):
            if (states := kept.pop(row)) is not None:
                self._slots.put(index, states)
        logits = torch.cat(
            [self._prefill(first + start, group) for start, group in _groups(ordered, self._prefill_tokens)]
        )
        self.rows.extend(ordered)
        self._rules = None
        self._accept(first, logits, self._rules_of(ordered, logits))

    def step(self) -> None:
        """Sample one token for every row."""
        self.counters.steps += 1
        self.counters.largest_batch = max(self.counters.largest_batch, len(self.rows))
        tokens = torch.tensor([[row.output[-1], row.stored] for row in self.rows], device=self._device)
        longest = max(row.stored for row in self.rows) + 1
        self._slots.reserve(len(self.rows), longest, kept=len(self.rows))
        logits = self._forward(0, tokens[:, :1], tokens[:, 1:], longest)
        for row in self.rows:
            row.stored += 1
        self._rules = self._rules or self._rules_of(self.rows, logits)
        self._accept(0, logits, self._rules)

    def leave(self, indices: Sequence[int]) -> None:
        """Take rows out; what they have computed can be continued later."""
        for index in sorted(indices, reverse=True):
            row, last = self.rows[index], self.rows.pop()
            length = self.prefixes.kept_length(len(row.prompt), row.stored)
            tokens = [*row.prompt, *row.output][:length]
            if self.prefixes.fits(tokens):
                self.prefixes.keep(tokens, self._slots.take(index, length))
            if row is not last:
                self._slots.move(len(self.rows), index, last.stored)
                self.rows[index] = last
        self._rules = None

    def free(self) -> None:
        """Forget all rows and kept prefixes and give their memory back."""
        self.rows.clear()
        self._rules = None
        self._slots.free()
        self.prefixes.clear()

    def _rules_of(self, rows: Sequence[BatchRow], logits: Tensor) -> RowRules:
        return RowRules([row.params for row in rows], logits.shape[1], self._device)

    def _accept(self, first: int, logits: Tensor, rules: RowRules) -> None:
        rows = self.rows[first:]
        uniforms = [] if rules.all_greedy else [row.uniform() for row in rows]
        # the stop tokens of rows that have not generated their min_tokens yet
        short = [index for index, row in enumerate(rows) if len(row.output) < row.params.min_tokens]
        sampled, logprobs = sample(logits, rules, uniforms, {index: sorted(rows[index].stop_ids) for index in short})
        ended: list[int] = []
        outcomes = zip(rows, sampled.tolist(), logprobs.tolist(), strict=True)
        for index, (row, token, logprob) in enumerate(outcomes, first):
            if reason := row.accept(token, logprob):
                ended.append(index)
                self._finish(row, reason)
        self.counters.generated_tokens += len(rows)
        if ended:
            self.leave(ended)

    def _prefill(self, first: int, rows: Sequence[BatchRow]) -> Tensor:
        """Compute the tokens that are not stored yet; logits after the last one, [rows, vocabulary]."""
        # aligned at the right, so that the last column is every row's last token
        pending = [row.prompt[row.stored :] for row in rows]
        width = max(map(len, pending))
        tokens = torch.tensor([[0] * (width - len(p)) + p for p in pending], device=self._device)
        begin = torch.tensor([len(row.prompt) - width for row in rows], device=self._device)
        positions = begin.unsqueeze(1) + torch.arange(width, device=self._device)
        stored = torch.tensor([row.stored for row in rows], device=self._device).unsqueeze(1)
        positions = positions.masked_fill(positions < stored, -1)
        longest = max(len(row.prompt) for row in rows)
        for start in range(0, width, _PREFILL_COLUMNS):
            piece = slice(start, start + _PREFILL_COLUMNS)
            seen = longest - max(0, width - start - _PREFILL_COLUMNS)
            logits = self._forward(first, tokens[:, piece], positions[:, piece], seen)
        for row in rows:
            row.stored = len(row.prompt)
        self.counters.prefilled_tokens += sum(map(len, pending))
        self.counters.reused_tokens += sum(row.reused for row in rows)
        return logits

    def _forward(self, first: int, tokens: Tensor, positions: Tensor, seen: int) -> Tensor:
        """Run tokens [rows, n] of slots `first` … at their positions (negative: padding).

        Attention looks at `seen` columns. Returns the logits after the last column, [rows, vocabulary].
        """
        places = self._slots.places(first, positions)
        self._slots.aim(first, len(tokens), places.flatten(), seen)
        columns = torch.arange(seen, device=self._device)
        # the model's dtype rather than bool: made once here, not once per layer inside the attention kernel
        mask = torch.zeros((*positions.shape, seen), dtype=self._slots.shape.dtype, device=self._device)
        mask.masked_fill_(columns > positions.unsqueeze(-1), self._masked)
        output = self._model(
            input_ids=tokens,
            attention_mask=mask.unsqueeze(1),
            position_ids=positions.clamp(min=0),
            past_key_values=self._slots.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return output.logits[:, -1].float()


def _groups(rows: Sequence[BatchRow], tokens: int) -> Iterator[tuple[int, Sequence[BatchRow]]]:
    """Runs of rows, sorted by pending tokens, whose padded prefill passes have `tokens` tokens at most."""
    start = 0
    while start < len(rows):
        end = start + 1
        while end < len(rows):
            columns = min(len(rows[end].prompt) - rows[end].stored, _PREFILL_COLUMNS)
            if (end + 1 - start) * columns > tokens:
                break
            end += 1
        yield start, rows[start:end]
        start = end
