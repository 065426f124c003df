"""The benchmarks by name, and the problems of a file or of the Hub.

A named benchmark is read from a local file where one is given, else from the Hub at a pinned revision, so
that two runs see the same problems. Both ways the same reader takes the same file.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longshort_reward.errors import UserError

from verl_longshort.base.files import Record, check_file, read_records
from verl_longshort.base.hub import hub_errors, hub_reason
from verl_longshort.problems.fields import Schema, find_schema
from verl_longshort.problems.reader import Problem, RowError, read_problem

DATA_KEY = "longshort.data"
BENCHMARKS_KEY = "longshort.benchmarks"
DIR_KEY = "longshort.benchmark_dir"
_SUFFIXES = (".jsonl", ".json", ".parquet", ".csv")


@dataclass(frozen=True, kw_only=True)
class HubFile:
    """A benchmark's file on the Hugging Face Hub."""

    title: str
    """What tables call the benchmark."""
    repository: str
    file: str
    revision: str
    problems: int


BENCHMARKS: Mapping[str, HubFile] = {
    "math500": HubFile(
        title="MATH500",
        repository="HuggingFaceH4/MATH-500",
        file="test.jsonl",
        revision="6e4ed1a2a79af7d8630a6b768ec859cb5af4d3be",
        problems=500,
    ),
    "aime24": HubFile(
        title="AIME24",
        repository="HuggingFaceH4/aime_2024",
        file="data/train-00000-of-00001.parquet",
        revision="2fe88a2f1091d5048c0f36abc874fb997b3dd99a",
        problems=30,
    ),
    "aime25": HubFile(
        title="AIME25",
        repository="math-ai/aime25",
        file="test.jsonl",
        revision="563bb8404243c5f09de6ec262f2db674fe5bce9b",
        problems=30,
    ),
    "gpqa_diamond": HubFile(
        title="GPQA-Diamond",
        repository="Idavidrein/gpqa",
        file="gpqa_diamond.csv",
        revision="633f5ee89ab8ad4522a9f850766b73f62147ffdd",
        problems=198,
    ),
    "amc23": HubFile(
        title="AMC23",
        repository="math-ai/amc23",
        file="test-00000-of-00001.parquet",
        revision="80815d37005feb82cd7f8fbc6901d5d3eff43057",
        problems=40,
    ),
}
"""In the order of the paper's table."""


@dataclass(frozen=True, kw_only=True)
class BenchmarkFile:
    """Where the problems of one benchmark are."""

    name: str
    key: str
    """The setting that names it, for errors."""
    path: Path | None
    """None: it is fetched from the Hub."""
    schema: Schema | None = None
    """None: found by the fields that the rows have."""


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """The problems of one benchmark."""

    name: str
    origin: Mapping[str, Any]
    """Where they come from, as JSON values: two runs that agree in it saw the same file."""
    problems: Sequence[Problem]

    @property
    def title(self) -> str:
        """What tables call it."""
        return title(self.name)


def title(name: str) -> str:
    """What tables call a benchmark."""
    return BENCHMARKS[name].title if name in BENCHMARKS else name


def benchmark_sort_key(name: str) -> tuple[int, str]:
    """Sorts benchmarks: those of the paper in its order, then others by name."""
    return (list(BENCHMARKS).index(name) if name in BENCHMARKS else len(BENCHMARKS), name)


def find_files(
    names: Sequence[str],
    files: Mapping[str, str | None],
    folder: str | None,
    data: Sequence[str],
    schema: Schema | None,
) -> list[BenchmarkFile]:
    """Where each named benchmark and each file of `data` is; `schema` is that of the files of `data`.

    A named benchmark is the file that `files` gives for it, else `<folder>/<name>.<kind>`, else the Hub's.
    Raises UserError for an unknown name, a benchmark that the folder lacks, two of one name, or none at all.
    """
    found = [_named(name, files.get(name), folder) for name in names]
    found += [
        BenchmarkFile(name=Path(path).stem, key=DATA_KEY, path=Path(path).expanduser(), schema=schema) for path in data
    ]
    if not found:
        remedy = f"give {BENCHMARKS_KEY}=[{','.join(BENCHMARKS)}], or {DATA_KEY}=<file> for a file of yours"
        raise UserError(BENCHMARKS_KEY, "[]", remedy)
    for number, file in enumerate(found):
        if file.name in {earlier.name for earlier in found[:number]}:
            raise UserError(file.key, file.name, "is named twice: each benchmark needs a name of its own")
    return found


def load_benchmark(file: BenchmarkFile, *, template: str, option_seed: int, limit: int | None) -> Benchmark:
    """The first `limit` problems of a file.

    Raises UserError for a file that cannot be read or fetched, fields of no known schema, a named benchmark
    of another size, and a row that cannot be used, with its number.
    """
    path, origin = _locate(file)
    rows = read_records(path, key=file.key, columns=())
    _check_size(file, path, len(rows))
    schema = _schema(file, path, rows)
    problems: list[Problem] = []
    for index, row in enumerate(rows[:limit]):
        try:
            problem = read_problem(
                row, schema, source=file.name, index=index, template=template, option_seed=option_seed
            )
        except RowError as error:
            raise UserError(file.key, f"{path}, row {index + 1}", f"{error}: correct the row") from error
        problems.append(problem)
    return Benchmark(name=file.name, origin={**origin, "problems": len(problems)}, problems=problems)


def fetch(hub: HubFile) -> Path:
    """The file of the Hub at its revision, or from the local cache. Raises what the Hub's client raises."""
    from huggingface_hub import hf_hub_download

    downloaded = hf_hub_download(hub.repository, hub.file, revision=hub.revision, repo_type="dataset")
    return Path(downloaded)


def _named(name: str, file: str | None, folder: str | None) -> BenchmarkFile:
    if name not in BENCHMARKS:
        raise UserError(BENCHMARKS_KEY, name, f"is none of {', '.join(BENCHMARKS)}; for a file of yours use {DATA_KEY}")
    if file is not None:
        return BenchmarkFile(name=name, key=f"longshort.benchmark_files.{name}", path=Path(file).expanduser())
    if folder is None:
        return BenchmarkFile(name=name, key=BENCHMARKS_KEY, path=None)
    paths = [Path(folder).expanduser() / f"{name}{suffix}" for suffix in _SUFFIXES]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        raise UserError(DIR_KEY, folder, f"has no {name}{' or '.join(_SUFFIXES)}: put the file there")
    return BenchmarkFile(name=name, key=DIR_KEY, path=path)


def _locate(file: BenchmarkFile) -> tuple[Path, dict[str, Any]]:
    if file.path is not None:
        check_file(file.path, key=file.key)
        return file.path, {"name": file.name, "file": file.path.name, "sha256": _digest(file.path)}
    hub = BENCHMARKS[file.name]
    try:
        path = fetch(hub)
    except hub_errors() as error:
        remedy = (
            f"{hub.repository} cannot be fetched ({hub_reason(error)}); a gated one needs its terms accepted and a "
            f"login; without a network give {DIR_KEY}=<folder with {file.name}{Path(hub.file).suffix}>"
        )
        raise UserError(file.key, file.name, remedy) from error
    where = {"repository": hub.repository, "file": hub.file, "revision": hub.revision}
    return path, {"name": file.name, **where, "sha256": _digest(path)}


def _schema(file: BenchmarkFile, path: Path, rows: Sequence[Record]) -> Schema:
    # The first row decides which fields there are; where it is empty, a later one shows what a field holds.
    row = {name: next((row[name] for row in rows if row.get(name) is not None), None) for name in rows[0]}
    schema = file.schema or find_schema(row)
    found = ", ".join(map(str, row)) or "none"
    if schema is None:
        remedy = "name them with longshort.fields.problem=<field> and longshort.fields.answer=<field>"
        raise UserError(file.key, path, f"fields of no known benchmark (it has: {found}); {remedy}")
    absent = sorted(schema.fields - row.keys())
    if absent:
        raise UserError("longshort.fields", absent[0], f"{path} has no such field (it has: {found})")
    return schema


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _check_size(file: BenchmarkFile, path: Path, found: int) -> None:
    expected = BENCHMARKS[file.name].problems if file.name in BENCHMARKS else found
    if file.key != DATA_KEY and found != expected:
        remedy = f"has {found} problems, {title(file.name)} has {expected}; if you mean it give {DATA_KEY}"
        raise UserError(file.key, path, remedy)
