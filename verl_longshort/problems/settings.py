"""Which problems an evaluation is about: the settings from `benchmarks` to `limit` of `config/eval.yaml`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from longshort_reward.errors import UserError
from verl_longshort.problems.benchmarks import BENCHMARKS, Benchmark, find_sources, load_benchmark
from verl_longshort.problems.schemas import LETTERS, Schema
from verl_longshort.config.pair import check_keys

KEYS = (
    *("benchmarks", "benchmark_dir", "benchmark_files", "data"),
    *("fields", "template", "option_seed", "limit"),
)
_FIELDS = ("problem", "answer", "solution", "wrong_answers")


@dataclass(frozen=True, kw_only=True)
class ProblemSettings:
    """What `load` depends on."""

    benchmarks: Sequence[str]
    benchmark_dir: str | None
    benchmark_files: Mapping[str, str | None]
    data: Sequence[str]
    schema: Schema | None
    """Of the files of `data`; None: found by their fields."""
    template: str
    option_seed: int
    limit: int | None

    @classmethod
    def parse(cls, block: Mapping[str, Any]) -> "ProblemSettings":
        """Check the keys `KEYS` of a block. Raises UserError naming the one that cannot be used."""
        check_keys(block["benchmark_files"], "longshort.benchmark_files", tuple(BENCHMARKS))
        if "{problem}" not in block["template"]:
            raise UserError("longshort.template", block["template"], "must hold {problem}")
        if block["limit"] is not None and block["limit"] <= 0:
            raise UserError("longshort.limit", block["limit"], "must be above 0, or null for all")
        return cls(
            benchmarks=_listed(block["benchmarks"]),
            benchmark_dir=block["benchmark_dir"],
            benchmark_files=block["benchmark_files"],
            data=_listed(block["data"]),
            schema=_schema(block["fields"]),
            template=block["template"],
            option_seed=block["option_seed"],
            limit=block["limit"],
        )

    def load(self) -> list[Benchmark]:
        """The benchmarks with their problems. Raises UserError when one cannot be found or read."""
        sources = find_sources(
            self.benchmarks, self.benchmark_files, self.benchmark_dir, self.data, self.schema
        )
        return [
            load_benchmark(
                source, template=self.template, option_seed=self.option_seed, limit=self.limit
            )
            for source in sources
        ]

    def header(self) -> dict[str, Any]:
        """The settings that decide what is asked, besides the files, as JSON values."""
        return {"template": self.template, "option_seed": self.option_seed, "limit": self.limit}


def _listed(value: Any) -> list[str]:
    if value is None:
        return []
    return [str(item) for item in value] if isinstance(value, list) else [str(value)]


def _schema(fields: Mapping[str, Any]) -> Schema | None:
    check_keys(fields, "longshort.fields", _FIELDS)
    given = {name: fields[name] for name in _FIELDS if fields[name]}
    if not given:
        return None
    if "problem" not in given:
        raise UserError("longshort.fields.problem", None, "is needed with the other fields of the rows")
    if "answer" not in given and "solution" not in given:
        raise UserError("longshort.fields.answer", None, "give it, or longshort.fields.solution")
    wrong = tuple(given.pop("wrong_answers", ()))
    if len(wrong) >= len(LETTERS):
        raise UserError("longshort.fields.wrong_answers", wrong, f"{len(LETTERS) - 1} at most")
    return Schema(**given, wrong=wrong)
