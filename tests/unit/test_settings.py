"""What typed settings say about a value that they do not accept."""

from enum import Enum
from typing import Annotated, Any, Literal

import pytest
from longshort_reward.errors import UserError
from longshort_reward.settings import PositiveInt, Remedy, Seconds, SettingError, Settings, Weight
from pydantic import Field, model_validator


class Kind(Enum):
    A = "a"
    B = "b"


class Inner(Settings):
    timeout_s: Seconds = 1.0
    parts: tuple[PositiveInt, ...] = ()


class Outer(Settings):
    samples: PositiveInt = 8
    kind: Kind = Kind.A
    how: Literal["fixed", "adaptive"] = "fixed"
    own: Annotated[int, Remedy("give a number of GPUs")] = 1
    lambda_: Weight = Field(default=0.1, alias="lambda")
    inner: Inner = Inner()
    optional: Inner | None = None
    limit: PositiveInt | None = None

    @model_validator(mode="after")
    def _check(self) -> "Outer":
        if self.limit is not None and self.limit > self.samples:
            raise SettingError("limit", self.limit, f"must be at most samples ({self.samples})")
        return self


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"samples": 0}, "x.samples = 0: must be a whole number from 1 on"),
        ({"samples": True}, "x.samples = True: must be a whole number from 1 on"),
        ({"samples": 2.0}, "x.samples = 2.0: must be a whole number from 1 on"),
        ({"samples": "2"}, "x.samples = 2: must be a whole number from 1 on"),
        ({"sampels": 1}, "x.sampels = 1: unknown key; did you mean samples?"),
        ({"zzz": 1}, "x.zzz = 1: unknown key; known keys: samples, kind, how, own, lambda, inner, optional, limit"),
        ({"samples": 0, "sampels": 1}, "x.sampels = 1: unknown key; did you mean samples?"),
        ({"kind": "c"}, "x.kind = c: must be one of a, b"),
        ({"how": "c"}, "x.how = c: must be one of fixed, adaptive"),
        ({"own": "all"}, "x.own = all: give a number of GPUs"),
        ({"lambda": -1}, "x.lambda = -1: must be 0 or more; 0 switches the term off"),
        ({"lambda": "1"}, "x.lambda = 1: must be a finite number"),
        ({"lambda": float("nan")}, "x.lambda = nan: must be a finite number"),
        ({"inner": 3}, "x.inner = 3: must be a block with the keys timeout_s, parts"),
        ({"inner": {"timeout_s": "soon"}}, "x.inner.timeout_s = soon: must be a number of seconds above 0"),
        ({"inner": {"timeout": 1}}, "x.inner.timeout = 1: unknown key; did you mean timeout_s?"),
        ({"optional": {"timeout": 1}}, "x.optional.timeout = 1: unknown key; did you mean timeout_s?"),
        ({"inner": {"parts": [1, 0]}}, "x.inner.parts[1] = 0: must be a whole number from 1 on"),
        ({"limit": 9}, "x.limit = 9: must be at most samples (8)"),
        (3, "x = 3: must be a block with the keys samples, kind, how, own, lambda, inner, optional, limit"),
    ],
)
def test_key_value_and_remedy(block: Any, message: str) -> None:
    with pytest.raises(UserError) as caught:
        Outer.parse(block, "x")
    assert str(caught.value) == message


def test_a_missing_key() -> None:
    class Needs(Settings):
        model: str

    with pytest.raises(UserError, match=r"x\.model = None: missing; keys of this block: model"):
        Needs.parse({}, "x")


def test_options_are_named_as_on_the_command_line() -> None:
    class Options(Settings):
        most_tokens: PositiveInt

    with pytest.raises(UserError, match=r"^--most-tokens = 0: must be a whole number from 1 on$"):
        Options.parse({"most_tokens": 0}, where="")


def test_good_values_are_kept() -> None:
    settings = Outer.parse({"samples": 9, "lambda": 0, "kind": "b", "inner": {"timeout_s": 2}, "limit": None})
    assert (settings.samples, settings.lambda_, settings.kind) == (9, 0.0, Kind.B)
    assert settings.inner.timeout_s == 2.0


def test_settings_do_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Outer.parse({}).samples = 3  # type: ignore[misc]
