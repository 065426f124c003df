"""Keys and values: of the rows that are running, and of sequences that may be continued later.

* `Slots`: preallocated, growing buffers of all layers in one tensor. A row's token at position p lies in
  column p, so a step writes one column per row in place, and nothing is ever concatenated, padded or shifted.
  On a CPU a place takes memory once something has been written to it.
  `Slots.cache` is what a transformers model takes as `past_key_values`.
* `Prefixes`: keys and values of finished sequences, found again by their tokens, of bounded size; the least
  recently used go first.
* `SharedPrefixes`: the same for requests that branch, such as rollouts from every prefix of one text.
"""

import math
import mmap
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from longshort_reward.errors import UserError
from torch import Tensor
from transformers import Cache, DynamicCache, DynamicLayer, PreTrainedModel
from transformers.cache_utils import CacheLayerMixin

_COLUMN_STEP = 64
# Tokens that are as well computed again as kept: rollouts from every prefix of a chain differ from it by the few tokens
# that ask for an answer, and a copy of each would drive the chain itself out.
_FEW = 16


@dataclass(frozen=True, kw_only=True)
class LayerShape:
    """What a model's layers store for one token."""

    layers: int
    heads: int
    head_dim: int
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def of(cls, model: PreTrainedModel) -> "LayerShape":
        """Ask the model by running one token. Raises UserError for a cache that `Slots` cannot hold."""
        cache = DynamicCache(config=model.config)
        with torch.no_grad():
            model(input_ids=torch.zeros(1, 1, dtype=torch.long, device=model.device), past_key_values=cache)
        kinds = {type(layer) for layer in cache.layers}
        shapes = {tuple(t.shape) for layer in cache.layers for t in (layer.keys, layer.values)}
        if kinds != {DynamicLayer} or len(shapes) != 1:
            remedy = (
                "this engine needs full attention with keys and values of one shape in every layer, and "
                f"found {sorted(k.__name__ for k in kinds)} with shapes {sorted(shapes)}; use another engine"
            )
            raise UserError("model", model.config.model_type, remedy)
        keys = cache.layers[0].keys
        return cls(
            layers=len(cache.layers), heads=keys.shape[1], head_dim=keys.shape[3], dtype=keys.dtype, device=keys.device
        )


class Slots:
    """Keys and values of the running rows: [2 * layers, rows * columns, heads, head_dim].

    The memory grows when more rows or columns are asked for and stays until `free`.
    """

    def __init__(self, shape: LayerShape) -> None:
        self.shape = shape
        self.rows = self.columns = 0
        self._data = self._new(0, 0)
        self._layers: list[_SlotLayer] = [_SlotLayer(self, index) for index in range(shape.layers)]
        self.cache = Cache(layers=list(self._layers))
        self.aim(0, 0, torch.empty(0, dtype=torch.long, device=shape.device), 0)

    def _new(self, rows: int, columns: int) -> Tensor:
        # zeros: a masked column has weight 0, and 0 times an uninitialised NaN would be NaN.
        # One place more than rows * columns takes what padding writes.
        size = (2 * self.shape.layers, rows * columns + 1, self.shape.heads, self.shape.head_dim)
        if self.shape.device.type != "cpu":
            return torch.zeros(size, dtype=self.shape.dtype, device=self.shape.device)
        # torch.zeros would write all of it; the pages of a mapping are zero, and taken when they are first written to
        length = math.prod(size) * self.shape.dtype.itemsize
        pages = mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        return torch.frombuffer(pages, dtype=self.shape.dtype).view(size)

    def reserve(self, rows: int, columns: int, *, kept: int | None = None) -> None:
        """Have room for this many rows and columns; what the first `kept` rows (None: all) store stays where it is."""
        if rows <= self.rows and columns <= self.columns:
            return
        kept = self.rows if kept is None else kept
        # more than was asked for, so that copying the buffers stays rare while batch and sequences grow
        rows = max(rows, kept) if rows <= self.rows else max(rows, 2 * kept)
        columns = self.columns if columns <= self.columns else max(columns, self.columns * 3 // 2)
        columns = -(-columns // _COLUMN_STEP) * _COLUMN_STEP
        if not kept:
            self.free()
        data = self._new(rows, columns)
        old = self._grid(self._data, self.rows, self.columns)[:, :kept]
        self._grid(data, rows, columns)[:, :kept, : self.columns] = old
        self._data, self.rows, self.columns = data, rows, columns

    def free(self) -> None:
        """Give the memory back; whatever was stored is gone."""
        self.rows = self.columns = 0
        self._data = self._new(0, 0)

    @staticmethod
    def _grid(data: Tensor, rows: int, columns: int) -> Tensor:
        return data[:, :-1].unflatten(1, (rows, columns))

    def places(self, first: int, positions: Tensor) -> Tensor:
        """Where tokens at `positions` [rows, n] of slots `first` … are stored; negative: nowhere."""
        rows = torch.arange(first, first + len(positions), device=positions.device).unsqueeze(1)
        return torch.where(positions < 0, self.rows * self.columns, rows * self.columns + positions)

    def aim(self, first: int, rows: int, places: Tensor, columns: int) -> None:
        """Say what the next forward pass works on.

        Args:
            first, rows: the slots of the pass's rows, a run.
            places: [rows * new tokens], where the new tokens go, from `places`.
            columns: how many columns attention looks at.
        """
        self._window = slice(first, first + rows)
        self._places = places
        self.seen = columns

    def write(self, index: int, states: Tensor) -> Tensor:
        """Store [rows, heads, new tokens, head_dim]; return all, [rows, heads, columns, head_dim]."""
        data = self._data[index]
        data.index_copy_(0, self._places, states.transpose(1, 2).flatten(0, 1))
        grid = data[:-1].unflatten(0, (self.rows, self.columns))
        return grid[self._window, : self.seen].transpose(1, 2)

    def move(self, source: int, target: int, length: int) -> None:
        """Copy a row's first `length` columns to another row."""
        grid = self._grid(self._data, self.rows, self.columns)
        grid[:, target, :length] = grid[:, source, :length]

    def take(self, row: int, length: int) -> Tensor:
        """A copy of a row's first `length` columns: [2 * layers, length, heads, head_dim]."""
        return self._grid(self._data, self.rows, self.columns)[:, row, :length].clone()

    def put(self, row: int, states: Tensor) -> None:
        """Write what `take` gave to the first columns of a row."""
        self._grid(self._data, self.rows, self.columns)[:, row, : states.shape[1]] = states


class _SlotLayer(CacheLayerMixin):
    """One layer's share of `Slots`, in the shape in which a transformers model asks for it."""

    is_sliding = False

    def __init__(self, slots: Slots, index: int) -> None:
        super().__init__()
        self._slots, self._index = slots, index
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        keys = self._slots.write(2 * self._index, key_states)
        return keys, self._slots.write(2 * self._index + 1, value_states)

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing to do: the slots exist already."""

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self._slots.seen, 0

    def get_seq_length(self) -> int:
        return self._slots.seen

    def get_max_cache_shape(self) -> int:
        return -1


@dataclass(frozen=True, kw_only=True)
class Kept:
    """A finished sequence: its tokens and [2 * layers, tokens, heads, head_dim]."""

    tokens: list[int]
    states: Tensor


class Prefixes:
    """Finished sequences with their keys and values, `capacity` tokens at most."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._kept: OrderedDict[int, Kept] = OrderedDict()
        self.tokens = 0

    def kept_length(self, prompt: int, stored: int) -> int:
        """How many of a finished row's `stored` tokens are worth keeping; its first `prompt` were given."""
        return stored

    def fits(self, tokens: Sequence[int]) -> bool:
        """Whether `keep` would remember a sequence of this length."""
        return 0 < len(tokens) <= self._capacity

    def keep(self, tokens: list[int], states: Tensor) -> None:
        """Remember a sequence; the least recently used ones go when it does not fit otherwise."""
        if not self.fits(tokens):
            return
        key = chain_hashes(tokens)[-1]
        self._drop(key)
        self._kept[key] = Kept(tokens=tokens, states=states)
        self.tokens += len(tokens)
        while self.tokens > self._capacity:
            self._drop(next(iter(self._kept)))

    def take(self, prompt: Sequence[int]) -> Tensor | None:
        """States of the longest sequence that `prompt` continues, removed from the store; None if none."""
        if not self._kept:
            return None
        # the last token must be computed in any case: its logits are what generation starts from
        for key in reversed(chain_hashes(prompt[:-1])):
            kept = self._kept.get(key)
            if kept is not None and list(prompt[: len(kept.tokens)]) == kept.tokens:
                self._drop(key)
                return kept.states
        return None

    def clear(self) -> None:
        """Forget everything."""
        self._kept.clear()
        self.tokens = 0

    def __len__(self) -> int:
        return len(self._kept)

    def _drop(self, key: int) -> Kept | None:
        kept = self._kept.pop(key, None)
        if kept is not None:
            self.tokens -= len(kept.tokens)
        return kept


def chain_hashes(tokens: Sequence[int]) -> list[int]:
    """A hash of every prefix, shortest first, in one pass."""
    value, chain = 0, []
    for token in tokens:
        value = hash((value, token))
        chain.append(value)
    return chain


class SharedPrefixes(Prefixes):
    """Prompts of finished requests, `capacity` tokens at most; found by any beginning, and not removed when found.

    A later prompt gets the longest beginning that it has in common with any of them: a part of a kept prompt will do,
    since keys and values of a token depend on the tokens before it alone.
    """

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self._beginnings: dict[int, int] = {}
        """Hash of a beginning -> key of a kept prompt that has it."""

    def kept_length(self, prompt: int, stored: int) -> int:
        """The prompt alone: nobody continues what a rollout wrote."""
        return min(prompt, stored)

    def fits(self, tokens: Sequence[int]) -> bool:
        """Also False for what is a part of a kept prompt already, but for a few tokens at its end."""
        return super().fits(tokens) and chain_hashes(tokens[:-_FEW] or tokens)[-1] not in self._beginnings

    def keep(self, tokens: list[int], states: Tensor) -> None:
        """Remember a prompt; the least recently used ones go when it does not fit otherwise."""
        if not self.fits(tokens):
            return
        super().keep(tokens, states)
        hashes = chain_hashes(tokens)
        self._beginnings.update(dict.fromkeys(hashes, hashes[-1]))

    def take(self, prompt: Sequence[int]) -> Tensor | None:
        """States of the longest beginning of `prompt` that is kept, without its last token; None if none."""
        hashes = chain_hashes(prompt[:-1])
        for length in range(len(hashes), 0, -1):
            key = self._beginnings.get(hashes[length - 1])
            kept = None if key is None else self._kept.get(key)
            if key is not None and kept is not None and kept.tokens[:length] == list(prompt[:length]):
                self._kept.move_to_end(key)
                return kept.states[:, :length]
        return None

    def clear(self) -> None:
        """Forget everything."""
        super().clear()
        self._beginnings.clear()

    def _drop(self, key: int) -> Kept | None:
        kept = super()._drop(key)
        for beginning in chain_hashes(kept.tokens) if kept else ():
            if self._beginnings.get(beginning) == key:
                del self._beginnings[beginning]
        return kept
