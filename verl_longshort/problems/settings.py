"""Which problems an evaluation is about: the settings from `benchmarks` to `limit` of `config/eval.yaml`."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from annotated_types import Gt
from longshort_reward.settings import Remedy, SettingError, Settings
from pydantic import BeforeValidator, Strict, field_validator

from verl_longshort.base.dry_run import is_planned
from verl_longshort.base.files import Records
from verl_longshort.problems.benchmarks import BENCHMARKS, Benchmark, BenchmarkFile, find_files, load_benchmark
from verl_longshort.problems.fields import Schema
from verl_longshort.problems.reader import LETTERS


def _listed(value: Any) -> list[str]:
    if value is None:
        return []
    return [str(item) for item in value] if isinstance(value, list | tuple) else [str(value)]


Listed = Annotated[Sequence[str], BeforeValidator(_listed)]
"""One text, a list of texts, or None for none."""


class FieldNames(Settings):
    """The block `fields`: what the fields of the rows of `data` are called, where they are no known ones."""

    problem: str | None = None
    answer: str | None = None
    solution: str | None = None
    wrong_answers: Sequence[str] = ()

    @field_validator("wrong_answers")
    @classmethod
    def _few_enough(cls, value: Sequence[str]) -> Sequence[str]:
        if len(value) >= len(LETTERS):
            raise SettingError("", value, f"{len(LETTERS) - 1} at most")
        return value

    def schema_or_none(self) -> Schema | None:
        """The schema that they are; None when no name is given. Raises SettingError for too few."""
        if not (self.problem or self.answer or self.solution or self.wrong_answers):
            return None
        if not self.problem:
            raise SettingError("problem", None, "is needed with the other fields of the rows")
        if not (self.answer or self.solution):
            raise SettingError("answer", None, "give it, or longshort.fields.solution")
        return Schema(
            problem=self.problem,
            answer=self.answer or None,
            solution=self.solution or None,
            wrong=tuple(self.wrong_answers),
        )


class ProblemSettings(Settings):
    """Base class of the settings of a command that asks problems."""

    benchmarks: Listed = ()
    benchmark_dir: str | None = None
    benchmark_files: Mapping[str, str | None] = {}
    data: Listed = ()
    fields: FieldNames = FieldNames()
    template: str = "{problem}"
    option_seed: int = 0
    limit: Annotated[Annotated[int, Strict(), Gt(0)] | None, Remedy("must be above 0, or null for all")] = None

    @field_validator("benchmark_files")
    @classmethod
    def _known_benchmarks(cls, value: Mapping[str, str | None]) -> Mapping[str, str | None]:
        for name in value:
            if name not in BENCHMARKS:
                raise SettingError(name, value[name], f"unknown benchmark; use one of {', '.join(BENCHMARKS)}")
        return value

    @field_validator("fields")
    @classmethod
    def _enough_fields(cls, value: FieldNames) -> FieldNames:
        value.schema_or_none()
        return value

    @field_validator("template")
    @classmethod
    def _holds_the_problem(cls, value: str) -> str:
        if "{problem}" not in value:
            raise SettingError("", value, "must hold {problem}")
        return value

    @property
    def schema_of_data(self) -> Schema | None:
        """Of the files of `data`; None: found by their fields."""
        return self.fields.schema_or_none()

    def load_benchmarks(self) -> list[Benchmark]:
        """The benchmarks with their problems. Raises UserError when one cannot be found or read."""
        return [self._load(file, limit=self.limit) for file in self._files()]

    def expected_problems(self) -> int | None:
        """How many problems there will be; those of a benchmark on the Hub are known without fetching it.

        None when a file that an earlier stage writes has an unknown number. Raises UserError as `load_benchmarks`.
        """
        counts: list[int | None] = []
        for file in self._files():
            if file.path is None:
                counts.append(BENCHMARKS[file.name].problems)
            elif is_planned(file.path):
                counts.append(Records.planned(file.path).expected)
            else:
                counts.append(len(self._load(file, limit=None).problems))
        known = [count for count in counts if count is not None]
        if len(known) < len(counts):
            return None
        return sum(count if self.limit is None else min(count, self.limit) for count in known)

    def problem_header(self) -> dict[str, Any]:
        """The settings that decide what is asked, besides the files, as JSON values."""
        return {"template": self.template, "option_seed": self.option_seed, "limit": self.limit}

    def _files(self) -> list[BenchmarkFile]:
        return find_files(self.benchmarks, self.benchmark_files, self.benchmark_dir, self.data, self.schema_of_data)

    def _load(self, file: BenchmarkFile, *, limit: int | None) -> Benchmark:
        return load_benchmark(file, template=self.template, option_seed=self.option_seed, limit=limit)
