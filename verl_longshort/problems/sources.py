"""Problems from where they lie: a data set of the Hub or a local file.

A source is one string: a `.jsonl`, `.json`, `.parquet` or `.csv` file, or `owner/name[:config][@split]` on
the Hub, where the split is `train` unless given.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from longshort_reward.errors import UserError

from verl_longshort.base.dry_run import is_planned
from verl_longshort.base.files import KINDS, Record, check_file, read_records

_HUB = re.compile(r"(?P<name>[\w.-]+/[\w.-]+)(?::(?P<config>[\w.-]+))?(?:@(?P<split>[\w.-]+))?")
_FILES = (".jsonl", ".json", ".parquet", ".csv")


class Rows(Protocol):
    """Rows by number; a data set of the Hub reads one from disk when it is asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Record: ...


@dataclass(frozen=True, kw_only=True)
class Source:
    """Rows and where they are from."""

    name: str
    """As the user gave it."""
    rows: Rows

    def where(self, index: int) -> str:
        """Names a row, for an error or a list of what was left out."""
        return f"{self.name}, record {index + 1}"


def check_source(source: str, *, key: str) -> None:
    """`source` is a file that exists, or the name of a data set, which is not looked up.

    Raises UserError otherwise. In a dry run the file may be one that a stage before writes.
    """
    path = Path(source).expanduser()
    if is_file(source):
        if not is_planned(path):
            check_file(source, key=key)
    elif _HUB.fullmatch(source) is None:
        remedy = f"no such file: give {KINDS}, or owner/name[:config][@split] on the Hub"
        raise UserError(key, source, remedy)


def load_source(source: str, *, key: str) -> Source:
    """The rows of `source`.

    Raises:
        UserError: naming `key`: no such file or data set, no rows, a file that cannot be read.
    """
    check_source(source, key=key)
    if is_file(source):
        return Source(name=source, rows=read_records(source, key=key, columns=()))
    rows = _hub(source, key)
    if not len(rows):
        raise UserError(key, source, "has no rows")
    return Source(name=source, rows=rows)


def is_here(source: str) -> bool:
    """Whether a source is a file that can be read now; in a dry run one of an earlier stage cannot."""
    return is_file(source) and not is_planned(Path(source).expanduser())


def hub_rows(name: str, config: str | None, split: str) -> Rows:
    """A data set of the Hub, or its local cache. Raises what `datasets` raises."""
    import datasets  # type: ignore[import-untyped,unused-ignore]

    rows: Rows = datasets.load_dataset(name, config, split=split)
    return rows


def is_file(source: str) -> bool:
    """Whether a source is a file, there or yet to be written, and no data set of the Hub."""
    return Path(source).suffix in _FILES or Path(source).expanduser().is_file()


def _hub(source: str, key: str) -> Rows:
    parts = _HUB.fullmatch(source)
    assert parts is not None
    try:
        return hub_rows(parts["name"], parts["config"], parts["split"] or "train")
    # `datasets` has no common ancestor for "not found", "no such config or split" and "no network"
    except (OSError, ValueError, LookupError) as error:
        reason = str(error).strip().splitlines()[0]
        remedy = "download it where there is a network and give the file"
        raise UserError(key, source, f"the Hub gives no such data set ({reason}); {remedy}") from error
