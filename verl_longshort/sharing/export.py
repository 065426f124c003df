"""Writes a pair as one folder that can be served, evaluated, copied and pushed to the hub.

Weights are hard links to those of the checkpoint where the file system has them, and copies elsewhere; everything else
is copied. Paths of this machine are left out of what is written.
"""

import json
import os
import shutil
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

from longshort_reward.errors import UserError
from longshort_reward.protocol import ROLES, STOP_STRINGS, Role, RolePrompts
from rich.filesize import decimal

from verl_longshort.base.files import write_json, write_text
from verl_longshort.base.folders import contents, replace_folder, work_folder, writing
from verl_longshort.base.hub import asking_hub
from verl_longshort.base.model_files import ADAPTER_CONFIG, adapter_base, weight_headers
from verl_longshort.base.pair_file import FILE, PairRecord, PolicyEntry, Roles, digest_of
from verl_longshort.base.policy_record import POLICY_FILE, policy_record
from verl_longshort.base.progress import report
from verl_longshort.base.run_record import installed_versions
from verl_longshort.core.policies import said_roles
from verl_longshort.sharing.card import CARD, pair_card
from verl_longshort.sharing.settings import ExportSettings
from verl_longshort.sharing.source import RUN_KEY, Policy, Source, environment_of, evaluations_of, is_of

ADAPTERS = "adapters"
_WEIGHTS = ".safetensors"
_COPIED = (".json", ".jinja", ".model", ".txt", ".tiktoken", ".py")
"""Endings of files that belong to a model, beside its weights."""
_NOT_COPIED = ("longshort_sft.json",)


def check_target(folder: Path) -> None:
    """Raise UserError for a folder that holds anything but an export."""
    if contents(folder) and not (folder / FILE).is_file():
        remedy = "holds something else than an exported pair, which would be lost: give another folder"
        raise UserError("longshort.output_dir", folder, remedy)


def export_pair(settings: ExportSettings, source: Source, target: Path) -> PairRecord:
    """Write the pair of `source` as the folder `target`, in one step.

    Raises UserError for models that cannot be used, before anything is written.
    """
    evaluations = evaluations_of(settings, source)
    own = [one for one in evaluations if is_of(one, source)]
    environment = environment_of(settings.environment, source, own)
    prompts = environment.prompts.role_prompts
    folders = {}
    for role, policy in source.policies.items():
        key = f"longshort.models.{role}" if settings.run is None else RUN_KEY
        folders[role] = _local(policy.model, key)
        _check(role, folders[role], prompts, settings, key)
    work = work_folder(target)
    shutil.rmtree(work, ignore_errors=True)
    with writing(work, target):
        entries: dict[Role, PolicyEntry] = {}
        for name, roles in source.players.items():
            role = roles[0]
            written = _write_policy(work, name, roles, source.policies[role], folders[role], prompts, settings)
            entries |= {role: written.model_copy(update={"stop": STOP_STRINGS[role]}) for role in roles}
        record = PairRecord(
            name=settings.title,
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            roles=Roles(long=entries[Role.LONG], short=entries[Role.SHORT]),
            environment=environment,
            template=settings.template,
            sampling=settings.sampling,
            origin=source.origin,
            versions=installed_versions(),
        )
        write_json(work / FILE, record.model_dump(by_alias=True, mode="json"))
        write_text(work / CARD, pair_card(settings, source, record, work, evaluations, own))
        replace_folder(work, target)
    return record


def _local(model: str, key: str) -> Path:
    """The folder of a model; one of the hub is fetched. Raises UserError naming `key` where that fails."""
    if Path(model).is_dir():
        return Path(model)
    from huggingface_hub import snapshot_download

    endings = (_WEIGHTS, *_COPIED)
    with asking_hub(key, model, "model"):
        return Path(snapshot_download(model, allow_patterns=[f"*{ending}" for ending in endings]))


def _check(role: Role, folder: Path, prompts: RolePrompts, settings: ExportSettings, key: str) -> None:
    """Raise UserError for a model that is not whole, or whose tokenizer cannot write prompts."""
    from verl_longshort.engines.loading import check_weights
    from verl_longshort.engines.tokenizers import check_chat, load_tokenizer

    report(0, len(ROLES), f"checking the {role} model")
    if not weight_headers(folder):
        raise UserError(key, folder, "has no .safetensors weights: save it by save_pretrained")
    if adapter_base(folder) is None:
        check_weights(str(folder), key=key, trust_remote_code=settings.trust_remote_code)
    tokenizer = load_tokenizer(
        str(folder),
        key=key,
        trust_remote_code=settings.trust_remote_code,
        files_key="longshort.trust_remote_code",
    )
    prompt_key = f"longshort.environment.prompts.{role}"
    check_chat(tokenizer, str(folder), key=key, system=prompts.for_role(role), prompt_key=prompt_key)


def _write_policy(
    work: Path,
    name: str,
    roles: Sequence[Role],
    policy: Policy,
    folder: Path,
    prompts: RolePrompts,
    settings: ExportSettings,
) -> PolicyEntry:
    from verl_longshort.engines.turn_ends import stop_at_turns

    report(ROLES.index(roles[0]), len(ROLES), f"writing the {name} model")
    role = said_roles(roles)
    new, base = work / name, _without_path(policy.base)
    if adapter_base(folder) is None:
        _copy(_model_files(folder), new)
    else:
        _merge(folder, new, trust_remote_code=settings.trust_remote_code)
    _clean(new / "config.json", "_name_or_path")
    stop_at_turns(new, role, trust_remote_code=settings.trust_remote_code)
    write_json(new / POLICY_FILE, policy_record(role, prompts, base=base or ""))
    adapter = None
    if policy.adapter is not None:
        adapter = f"{ADAPTERS}/{name}"
        left = (ADAPTER_CONFIG, POLICY_FILE)
        _copy([file for file in _model_files(policy.adapter) if file.name not in left], work / adapter)
        shutil.copy2(policy.adapter / ADAPTER_CONFIG, work / adapter / ADAPTER_CONFIG)
        write_json(work / adapter / POLICY_FILE, policy_record(role, prompts, base=base or ""))
    return PolicyEntry(
        folder=name,
        adapter=adapter,
        base=base,
        stop=(),
        weights={file.name: digest_of(file) for file in sorted(new.glob(f"*{_WEIGHTS}"))},
    )


def _without_path(model: str | None) -> str | None:
    """A name on the hub as it is; of a folder only its own name."""
    if model is None or (model.count("/") == 1 and not model.startswith(("/", ".", "~")) and not Path(model).exists()):
        return model
    return Path(model).name


def _model_files(folder: Path) -> list[Path]:
    known = (_WEIGHTS, *_COPIED)
    return [
        file
        for file in sorted(folder.iterdir())
        if file.is_file() and file.name.endswith(known) and file.name not in _NOT_COPIED
    ]


def _copy(files: Sequence[Path], folder: Path) -> None:
    folder.mkdir(parents=True)
    for file in files:
        source, target = file.resolve(), folder / file.name
        if file.name.endswith(_WEIGHTS):
            try:
                os.link(source, target)
                continue
            except OSError:  # another file system, or one without hard links: as the docs say, a copy
                pass
        shutil.copy2(source, target)


def _merge(adapter: Path, folder: Path, *, trust_remote_code: bool) -> None:
    """Write the adapter merged into its base as a whole model."""
    from verl_longshort.engines.loading import load_model

    _copy([file for file in _model_files(adapter) if file.suffix != _WEIGHTS and file.name != ADAPTER_CONFIG], folder)
    kept = {file.name: file.read_bytes() for file in folder.iterdir()}
    load_model(str(adapter), trust_remote_code=trust_remote_code).save_pretrained(folder)
    for name, content in kept.items():
        if name != "config.json":
            (folder / name).write_bytes(content)


def _clean(file: Path, *names: str) -> None:
    content = json.loads(file.read_text(encoding="utf-8"))
    if any(name in content for name in names):
        write_json(file, {name: value for name, value in content.items() if name not in names})


def told(record: PairRecord, target: Path) -> str:
    """The export in a line."""
    entries = {entry.folder: entry for entry in map(record.roles.of, ROLES)}
    sizes = {folder: sum(one.bytes for one in entry.weights.values()) for folder, entry in entries.items()}
    shown = " + ".join(decimal(size) for size in sizes.values())
    step = "" if record.origin is None else f", step {record.origin.step} ({record.origin.chosen})"
    return f"{record.name}{step}: {shown} of weights in {target}"
