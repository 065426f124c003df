"""Sends an exported pair to the Hugging Face Hub: one repository, one commit.

Both roles are one repository, as the parts of a diffusers pipeline are, so that a revision of it names a pair and never
half of one. What is there already is replaced only if an earlier push made it.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longshort_reward.errors import UserError
from longshort_reward.protocol import ROLES

from verl_longshort.base.errors import UnavailableError
from verl_longshort.base.hub import hub_errors, hub_reason
from verl_longshort.base.model_files import ADAPTER_CONFIG
from verl_longshort.base.pair_file import FILE, Pair, digest_of, read_pair
from verl_longshort.base.progress import report
from verl_longshort.sharing.card import CARD

if TYPE_CHECKING:
    from huggingface_hub import HfApi

TITLE = "longshort push"
"""How the title of every commit of this command begins."""
_OWN_OF_HUB = (".gitattributes",)
_BASE = "base_model_name_or_path"


@dataclass(frozen=True, kw_only=True)
class Upload:
    """A file of the pair as it goes to the hub."""

    name: str
    content: Path | bytes

    @property
    def size(self) -> int:
        """In bytes."""
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size


def uploads_of(folder: Path) -> list[Upload]:
    """What is sent of an exported pair: its record, card, models and adapters.

    An adapter's base is named without the folders of this machine. Raises UserError where weights have changed since
    the export.
    """
    pair = read_pair(folder, key="FOLDER")
    _check_digests(pair)
    names = [FILE, CARD]
    for role in ROLES:
        entry = pair.record.roles.of(role)
        names += [each for part in (entry.folder, entry.adapter) if part is not None for each in _below(folder, part)]
    return [Upload(name=name, content=_content(folder / name)) for name in dict.fromkeys(names)]


def push(
    api: "HfApi",
    repository: str,
    uploads: Sequence[Upload],
    *,
    private: bool,
    replace: bool,
) -> str:
    """Send the files in one commit; returns the address of the commit.

    Raises UserError where the repository holds what no push made, unless `replace`; UnavailableError where the hub
    refuses or fails.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete
    from huggingface_hub.errors import HFValidationError

    try:
        api.create_repo(repository, private=private or None, exist_ok=True)
        info = api.model_info(repository)
        there = {one.rfilename for one in info.siblings or ()} - set(_OWN_OF_HUB)
        if there and not replace:
            _check_own(api, repository, there)
        sent = {upload.name for upload in uploads}
        added = [CommitOperationAdd(upload.name, _given(upload.content)) for upload in uploads]
        removed = [CommitOperationDelete(name) for name in sorted(there - sent)]
        done = api.create_commit(
            repository,
            operations=[*added, *removed],
            commit_message=f"{TITLE}: {_title(uploads)}",
            # whatever is committed in between is not lost: the hub refuses then
            parent_commit=info.sha,
        )
    except HFValidationError as error:
        raise UserError("REPOSITORY", repository, "is no name of a repository: give owner/name") from error
    except hub_errors() as error:
        remedy = "check the network, the token (HF_TOKEN) and its rights to write there"
        raise UnavailableError(f"{repository} was not pushed: {hub_reason(error)}; {remedy}") from error
    return str(done.commit_url)


def _check_digests(pair: Pair) -> None:
    """Raise UserError for weights that are not those of the export."""
    entries = map(pair.record.roles.of, ROLES)
    files = {f"{entry.folder}/{name}": digest for entry in entries for name, digest in entry.weights.items()}
    for number, (name, digest) in enumerate(files.items()):
        report(number, len(files), f"reading {name}")
        if digest_of(pair.folder / name) != digest:
            raise UserError("FOLDER", pair.folder, f"{name} is not what {FILE} names any more: export the pair again")


def _below(folder: Path, part: str) -> Iterator[str]:
    for file in sorted((folder / part).rglob("*")):
        if file.is_file() and not any(name.startswith(".") for name in file.relative_to(folder).parts):
            yield file.relative_to(folder).as_posix()


def _content(file: Path) -> Path | bytes:
    if file.name != ADAPTER_CONFIG:
        return file
    known: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    base = Path(str(known.get(_BASE)))
    if not (base.is_absolute() or base.is_dir()):
        return file
    return (json.dumps({**known, _BASE: base.name}, indent=2) + "\n").encode()


def _given(content: Path | bytes) -> str | bytes:
    return content if isinstance(content, bytes) else str(content)


def _title(uploads: Sequence[Upload]) -> str:
    record = next(upload.content for upload in uploads if upload.name == FILE)
    assert isinstance(record, Path), "it is a file"
    return str(json.loads(record.read_text(encoding="utf-8"))["name"])


def _check_own(api: "HfApi", repository: str, there: set[str]) -> None:
    """Raise UserError where the last commit of the repository is none of this command's."""
    last = api.list_repo_commits(repository)[0]
    if FILE in there and last.title.startswith(TITLE):
        return
    others = ", ".join(sorted(there)[:3]) + (f" and {len(there) - 3} more" if len(there) > 3 else "")
    what = f"was changed since its last push ({last.title!r})" if FILE in there else f"holds other files ({others})"
    remedy = f"{what}, which would be lost: give another name, or --replace to remove what is there"
    raise UserError("REPOSITORY", repository, remedy)
