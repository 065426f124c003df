"""Slots and kept prefixes."""

import resource

import pytest
import torch
from helpers.engines import ARCHITECTURES, build_model

from verl_longshort.engines.kv_cache import LayerShape, Prefixes, Slots

SHAPE = LayerShape(layers=2, heads=3, head_dim=4, dtype=torch.float32, device=torch.device("cpu"))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_shape_is_asked_from_the_model(architecture: str) -> None:
    shape = LayerShape.of(build_model(architecture))
    heads = {"qwen2": 2, "llama": 1}[architecture]
    assert (shape.layers, shape.heads, shape.head_dim) == (2, heads, 16)


def test_slots_keep_what_is_stored_while_they_grow() -> None:
    slots = Slots(SHAPE)
    slots.reserve(2, 10)
    states = torch.randn(4, 10, 3, 4)
    slots.put(1, states)
    slots.reserve(3, 10)
    slots.reserve(5, 200)
    assert torch.equal(slots.take(1, 10), states)
    slots.move(1, 4, 7)
    assert torch.equal(slots.take(4, 7), states[:, :7])
    size = (slots.rows, slots.columns)
    slots.reserve(1, 1)
    assert (slots.rows, slots.columns) == size


def test_slots_give_memory_back() -> None:
    slots = Slots(SHAPE)
    slots.reserve(8, 100)
    slots.free()
    assert (slots.rows, slots.columns) == (0, 0)
    slots.reserve(1, 1)
    assert not slots.take(0, 1).any()


def test_write_puts_each_row_at_its_positions_and_padding_nowhere() -> None:
    slots = Slots(SHAPE)
    slots.reserve(3, 8)
    positions = torch.tensor([[-1, 2], [0, 1]])
    slots.aim(1, 2, slots.places(1, positions).flatten(), 3)
    new = torch.arange(1, 2 * 3 * 2 * 4 + 1, dtype=torch.float32).reshape(2, 3, 2, 4)
    seen = slots.write(0, new)
    assert seen.shape == (2, 3, 3, 4)
    assert torch.equal(seen[0, :, 2], new[0, :, 1])
    assert torch.equal(seen[1, :, :2], new[1])
    assert not seen[0, :, :2].any()
    assert not slots.take(0, 8).any()


def kept(length: int) -> torch.Tensor:
    return torch.zeros(4, length, 3, 4)


def test_prefix_is_found_by_tokens_and_taken_once() -> None:
    prefixes = Prefixes(100)
    prefixes.keep([1, 2], kept(2))
    prefixes.keep([1, 2, 3], kept(3))
    longest = prefixes.take([1, 2, 3, 4])
    assert longest is not None
    assert longest.shape[1] == 3
    shorter = prefixes.take([1, 2, 3, 4])
    assert shorter is not None
    assert shorter.shape[1] == 2
    assert prefixes.take([1, 2, 3, 4]) is None
    assert (len(prefixes), prefixes.tokens) == (0, 0)


def test_prefix_must_leave_a_token_to_compute() -> None:
    prefixes = Prefixes(100)
    prefixes.keep([1, 2], kept(2))
    assert prefixes.take([1, 2]) is None
    assert prefixes.take([1, 3, 2]) is None
    assert prefixes.take([1]) is None


def test_oldest_prefixes_go_first_and_the_budget_holds() -> None:
    prefixes = Prefixes(6)
    for first in (1, 2, 3):
        prefixes.keep([first, 0], kept(2))
    prefixes.keep([4, 0], kept(2))
    assert prefixes.tokens == 6
    assert prefixes.take([1, 0, 9]) is None
    assert prefixes.take([2, 0, 9]) is not None
    prefixes.keep([5] * 7, kept(7))
    assert not prefixes.fits([5] * 7)
    assert prefixes.tokens == 4


def test_same_tokens_are_kept_once() -> None:
    prefixes = Prefixes(6)
    prefixes.keep([1, 2, 3], kept(3))
    prefixes.keep([1, 2, 3], kept(3))
    assert (len(prefixes), prefixes.tokens) == (1, 3)


def test_growing_carries_along_the_rows_that_are_kept_alone() -> None:
    slots = Slots(SHAPE)
    slots.reserve(8, 64)
    states = torch.randn(4, 64, 3, 4)
    for row in range(8):
        slots.put(row, states + row)
    slots.reserve(2, 100, kept=2)
    assert (slots.rows, slots.columns) == (2, 128)
    assert torch.equal(slots.take(0, 64), states)
    assert torch.equal(slots.take(1, 64), states + 1)
    slots.reserve(3, 128, kept=0)
    assert not slots.take(0, 128).any()


def test_places_take_memory_when_something_is_written_to_them() -> None:
    shape = LayerShape(layers=8, heads=4, head_dim=64, dtype=torch.bfloat16, device=torch.device("cpu"))
    slots = Slots(shape)

    def faults() -> int:
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

    before = faults()
    slots.reserve(64, 4096)  # 2 GiB, 524,288 pages
    slots.put(0, torch.ones(16, 64, 4, 64, dtype=torch.bfloat16))
    slots.reserve(64, 8192, kept=1)
    assert faults() - before < 20_000
    assert slots.take(0, 64).all()
