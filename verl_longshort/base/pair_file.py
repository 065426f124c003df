"""`pair.json`: two models that belong together, as `longshort export` writes them and other commands read them.

    my-pair/pair.json           what `PairRecord` says
    my-pair/long/, short/       each role as a plain Hugging Face folder; tied/: one model that plays both
    my-pair/adapters/long/      the adapter of a role that was trained with LoRA
    my-pair/README.md           the pair card

Commands take the folder, the file, or a repository of the hub as `longshort.pair`. `read_pair` reads it; `with_pair`
fills what it says into the configuration of a command, where the command line says nothing.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le
from longshort_reward.errors import UserError
from longshort_reward.protocol import ROLES, Role
from longshort_reward.settings import Remedy, SettingError, Settings
from pydantic import AfterValidator, Field, Strict

from verl_longshort.base.checkpoint import BEST, TRACKER
from verl_longshort.base.dry_run import is_planned
from verl_longshort.base.hub import asking_hub
from verl_longshort.config.pair import EnvironmentSettings

FILE = "pair.json"
FORMAT = 1
KEY = "longshort.pair"
_MARK = "longshort_pair"
_CHUNK = 1 << 20


def _inside(path: str) -> str:
    parts = PurePosixPath(path)
    if not path or parts.is_absolute() or ".." in parts.parts:
        raise SettingError("", path, f"must be a folder beside {FILE}")
    return path


Folder = Annotated[str, AfterValidator(_inside)]
"""A folder of the pair, relative to that of `pair.json`."""


class Digest(Settings):
    """What a file of weights is known by."""

    bytes: int
    sha256: str


class PolicyEntry(Settings):
    """The model of a role."""

    folder: Folder
    adapter: Folder | None = None
    """Of a role that was trained with LoRA: the adapter that `folder` holds merged."""
    base: str | None = None
    """The model that training began with: a name on the hub, or the name that its folder had."""
    stop: tuple[str, ...]
    """What ends a turn."""
    weights: Mapping[str, Digest]
    """By the file's name."""


class Roles(Settings):
    """The models by role; both may be in the same folder."""

    long: PolicyEntry
    short: PolicyEntry

    def of(self, role: Role) -> PolicyEntry:
        """The model of `role`."""
        return self.long if role is Role.LONG else self.short


class Sampling(Settings):
    """How the pair is sampled unless a request says otherwise."""

    temperature: Annotated[float, Strict(), Ge(0), Remedy("must be 0 (greedy) or more")] = 0.0
    top_p: Annotated[float, Strict(), Gt(0), Le(1), Remedy("must be above 0 and up to 1")] = 1.0


class Origin(Settings):
    """The training run that the pair comes from."""

    run: str
    """Name of the run's folder."""
    step: int
    chosen: Literal["best", "latest", "step"]
    schedule: tuple[str, ...]
    steps_per_round: int
    seed: int | None = None
    recipe: str | None = None
    data: Mapping[str, Mapping[str, Any]] = {}
    """What it trained and validated on, by split and configuration key."""
    start: Mapping[str, Any] | None = None
    """The validation before the first step, where there was one."""
    validation: Mapping[str, Any] | None = None
    """That of the exported step, where `best.json` has it."""
    versions: Mapping[str, str] = {}


class PairRecord(Settings):
    """The content of `pair.json`."""

    format: int = Field(default=FORMAT, alias="longshort_pair")
    name: str
    created: str
    roles: Roles
    environment: EnvironmentSettings
    """Limits of a trajectory and system prompts; no prompt is null."""
    template: str
    """How a problem is put to the pair; `{problem}` stands for it."""
    sampling: Sampling
    origin: Origin | None = None
    versions: Mapping[str, str]
    """Of this package and others when the pair was exported."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A pair on this machine."""

    folder: Path
    record: PairRecord

    @property
    def models(self) -> dict[Role, str]:
        """The folder of each role's model."""
        return {role: str(self.folder / self.record.roles.of(role).folder) for role in ROLES}

    def defaults(self) -> dict[str, Any]:
        """What the pair says, by configuration key below `longshort`."""
        environment = self.record.environment
        limits = {f"environment.{name}": value for name, value in vars(environment.limits).items()}
        prompts = {f"environment.prompts.{name}": text for name, text in vars(environment.prompts.role_prompts).items()}
        return {**limits, **prompts, "template": self.record.template, **vars(self.record.sampling)}


def read_pair(path: str | Path, *, key: str = KEY) -> Pair:
    """The pair in the folder `path`, of the file, or of a repository of the hub (`owner/name`, `owner/name@revision`).

    Raises UserError naming `key` where there is none, where it is damaged, and where its weights have another size.
    """
    given = Path(path).expanduser().absolute()
    if not given.exists() and _is_of_hub(str(path)):
        given = _fetched(str(path), key)
    file = given / FILE if given.is_dir() else given
    if not file.is_file():
        if (given / BEST).is_file() or (given / TRACKER).is_file():
            raise UserError(key, path, f"is a training run: longshort export longshort.run={path} writes its pair")
        raise UserError(key, path, f"has no {FILE}: give a folder that longshort export wrote")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(key, path, f"{file.name} is not JSON ({error}): export the pair again") from error
    if not isinstance(content, dict) or _MARK not in content:
        remedy = "is no pair that longshort export wrote"
        if isinstance(content, dict) and "steps_per_round" in content:
            remedy = f"is a checkpoint's own state: longshort export longshort.run={file.parent.parent} writes the pair"
        raise UserError(key, path, remedy)
    if content[_MARK] != FORMAT:
        raise UserError(key, path, f"has the format {content[_MARK]}, and this version reads {FORMAT}: upgrade")
    pair = Pair(folder=file.parent, record=PairRecord.parse(content, where=str(file)))
    for role in ROLES:
        _check_weights(pair, role, key, path)
    return pair


def _is_of_hub(path: str) -> bool:
    # a path below a folder that exists was meant as a path
    return path.count("/") == 1 and path[0] not in "./~" and not Path(path).parent.is_dir()


def _fetched(name: str, key: str) -> Path:
    from huggingface_hub import snapshot_download

    repository, _, revision = name.partition("@")
    with asking_hub(key, name, "pair"):
        return Path(snapshot_download(repository, revision=revision or None, etag_timeout=10))


def _check_weights(pair: Pair, role: Role, key: str, given: object) -> None:
    entry = pair.record.roles.of(role)
    for name, digest in entry.weights.items():
        file = pair.folder / entry.folder / name
        if not file.is_file():
            raise UserError(key, given, f"lacks {entry.folder}/{name}, which {FILE} names: copy the folder again")
        if (size := file.stat().st_size) != digest.bytes:
            remedy = f"{entry.folder}/{name} has {size} bytes, and {FILE} says {digest.bytes}: copy the folder again"
            raise UserError(key, given, remedy)


def digest_of(file: Path) -> Digest:
    """Size and SHA-256 of a file."""
    digest = hashlib.sha256()
    with file.open("rb") as content:
        while chunk := content.read(_CHUNK):
            digest.update(chunk)
    return Digest(bytes=file.stat().st_size, sha256=digest.hexdigest())


def with_pair(block: dict[str, Any], overrides: Sequence[str], *, without: Sequence[str] = ()) -> dict[str, Any]:
    """The `longshort` block of a command, with what `longshort.pair` says where `overrides` say nothing.

    `without` are keys that the command has for itself, such as `temperature`. Models behind endpoints keep the names
    that the endpoints have for them; their tokenizers are the pair's.

    Raises UserError where the models are given as well, and for a pair that cannot be used (`read_pair`).
    """
    given = block["pair"]
    if given is None:
        return block
    named = [override.partition("=")[0].lstrip("+") for override in overrides]
    folder = Path(given).expanduser()
    if is_planned(folder):
        models, defaults = {role: str(folder / role) for role in ROLES}, {}
    else:
        pair = read_pair(given)
        models, defaults = pair.models, {k: v for k, v in pair.defaults().items() if k not in without}
    behind = any(block.get("endpoint", {}).get("base_url", {}).get(role) for role in ROLES)
    for role in ROLES:
        key = f"endpoint.tokenizer.{role}" if behind else f"models.{role}"
        if not behind and (other := block["models"][role]) is not None:
            raise UserError(f"longshort.{key}", other, f"{KEY}={given} says it already: leave one of them out")
        defaults[key] = models[role]
    for key, value in defaults.items():
        if not any(f"longshort.{key}" == name or f"longshort.{key}".startswith(f"{name}.") for name in named):
            *above, leaf = key.split(".")
            at = block
            for part in above:
                at = at[part]
            at[leaf] = value
    return block
