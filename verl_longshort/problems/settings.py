"""Which problems an evaluation is about: the settings from `benchmarks` to `limit` of `config/eval.yaml`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from longshort_reward.errors import UserError

from verl_longshort.base.dry_run import is_planned
from verl_longshort.base.files import Records
from verl_longshort.config.pair import check_keys
from verl_longshort.problems.benchmarks import BENCHMARKS, Benchmark, Source, find_sources, load_benchmark
from verl_longshort.problems.schemas import LETTERS, Schema

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
        sources = find_sources(self.benchmarks, self.benchmark_files, self.benchmark_dir, self.data, self.schema)
        return [self._load(source, limit=self.limit) for source in sources]

    def _load(self, source: Source, *, limit: int | None) -> Benchmark:
        return load_benchmark(source, template=self.template, option_seed=self.option_seed, limit=limit)

    def expected(self) -> int | None:
        """How many problems there will be; those of a benchmark on the Hub are known without fetching it.

        None when a file that an earlier stage writes has an unknown number. Raises UserError as `load`.
        """
        sources = find_sources(self.benchmarks, self.benchmark_files, self.benchmark_dir, self.data, self.schema)
        counts: list[int | None] = []
        for source in sources:
            if source.path is None:
                counts.append(BENCHMARKS[source.name].problems)
            elif is_planned(source.path):
                counts.append(Records.planned(source.path).expected)
            else:
                counts.append(len(self._load(source, limit=None).problems))
        known = [count for count in counts if count is not None]
        if len(known) < len(counts):
            return None
        return sum(count if self.limit is None else min(count, self.limit) for count in known)

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
