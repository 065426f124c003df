"""Checks a fine-tuning before anything is loaded or written, and says what its settings mean."""

import os
from collections.abc import Sequence
from pathlib import Path
from textwrap import shorten
from typing import Any

from longshort_reward.errors import UserError
from longshort_reward.protocol import ROLES, RolePrompts
from omegaconf import DictConfig

from verl_longshort.base.console import say
from verl_longshort.base.files import check_model
from verl_longshort.base.folders import contents, real_folder, work_folder
from verl_longshort.base.policy_record import SUMMARY_FILE
from verl_longshort.config.pair import PromptSettings, plain_dict
from verl_longshort.core.policies import ALONE, BOTH, writers_of
from verl_longshort.data.sft_rows import (
    RoleRow,
    RoleTrajectory,
    fitting,
    held_out_problems,
    load_role_trajectories,
    role_row,
)

_VERL_FILES = ("global_step_", "latest_checkpointed_iteration.txt")
"""What verl writes where it works; a run that was killed leaves it there."""
_MODEL_SUFFIXES = (".json", ".safetensors", ".jinja", ".txt", ".model", ".py", ".tiktoken")


def check(config: DictConfig) -> None:
    """Raise UserError for a role, file, model path, folder or number that cannot be used. Light."""
    role = config.longshort.role
    if role not in (*ROLES, BOTH, ALONE):
        raise UserError("longshort.role", role, f"must be long, short, both or {ALONE}")
    system = config.longshort.system_prompt
    if system and role != ALONE:
        remedy = f"is of the role {ALONE}; those of {role} are longshort.environment.prompts.*"
        raise UserError("longshort.system_prompt", system, remedy)
    check_model(str(config.model.path), key="model.path")
    _check_output(config)
    _check_settings(config)
    rows = count_trajectories(config)
    batch = config.data.train_batch_size
    # The trainer drops incomplete batches, so a batch larger than the data would train nothing.
    if batch <= 0 or (rows is not None and batch > rows):
        raise UserError("data.train_batch_size", batch, f"must be from 1 to the number of trajectories, {rows}")
    devices = config.trainer.nnodes * config.trainer.n_gpus_per_node
    if batch % devices:
        raise UserError("data.train_batch_size", batch, f"must be a multiple of the number of devices, {devices}")
    micro = config.data.micro_batch_size_per_gpu
    if not config.data.use_dynamic_bsz and (micro < 1 or batch // devices % micro):
        remedy = f"must divide the {batch // devices} trajectories of a device in a batch, or set data.use_dynamic_bsz"
        raise UserError("data.micro_batch_size_per_gpu", micro, remedy)
    trainer = config.trainer
    steps = trainer.total_training_steps
    most = None if rows is None else trainer.total_epochs * (rows // batch)
    if steps is not None and (steps < 1 or (most is not None and steps > most)):
        raise UserError("trainer.total_training_steps", steps, f"must be from 1 to what the epochs have, {most}")


def count_trajectories(config: DictConfig) -> int | None:
    """How many trajectories are trained on, for both roles each twice; None when that is not known before the run.

    Raises UserError.
    """
    writers, limit = writers_of(config.longshort.role), config.data.train_max_samples
    records = load_role_trajectories(config.data.train_files, writers)
    if config.data.val_files:
        load_role_trajectories(config.data.val_files, writers, key="data.val_files")
    if not records:
        rows = records.expected
        return rows if rows is None or limit <= 0 else min(rows, limit)
    problems = [one.record.problem for one in (records[:limit] if limit > 0 else records)]
    held_out = held_out_problems(problems, config.longshort.held_out)
    return sum(problem not in held_out for problem in problems)


def check_rows(config: DictConfig) -> None:
    """Render every trajectory, and see that the model is whole. Seconds: imports torch, but reads no weights.

    Raises UserError for a tokenizer, a chat template, sequences or weights that cannot be used.
    """
    from verl_longshort.engines.loading import check_weights
    from verl_longshort.engines.tokenizers import check_chat, check_generation_config, load_tokenizer, said_of_system

    model, data, writers = config.model, config.data, writers_of(config.longshort.role)
    prompts = prompts_of(config)
    check_weights(str(model.path), key="model.path", trust_remote_code=model.trust_remote_code)
    check_generation_config(str(model.path), key="model.path")
    tokenizer = load_tokenizer(
        str(model.tokenizer_path or model.path),
        key="model.tokenizer_path" if model.tokenizer_path else "model.path",
        trust_remote_code=model.trust_remote_code,
        chat_template=model.custom_chat_template,
        files_key="model.trust_remote_code",
    )
    alone = config.longshort.role == ALONE
    for role, *_ in writers:
        path, system = str(model.path), prompts.for_role(role)
        prompt_key = "longshort.system_prompt" if alone else f"longshort.environment.prompts.{role}"
        template_key = "model.custom_chat_template"
        check_chat(tokenizer, path, key="model.path", system=system, prompt_key=prompt_key, template_key=template_key)
        if note := said_of_system(tokenizer, path, system=system, prompt_key=prompt_key):
            say(f"note: {note}")
    room = data.max_token_len_per_gpu * config.engine.ulysses_sequence_parallel_size
    for key, limit in (("train", data.train_max_samples), ("val", data.val_max_samples)):
        files = data[f"{key}_files"]
        records = load_role_trajectories(files, writers, key=f"data.{key}_files") if files else []
        rows = _rows(records[:limit] if limit > 0 else records, tokenizer, prompts, key=f"data.{key}_files")
        kept = fitting(rows, data.max_length)
        longest = max((len(rows[index].ids) for index in kept), default=0)
        if (data.use_dynamic_bsz or measures(config)) and longest > room:
            remedy = f"must hold the longest sequence, {longest} tokens: raise it"
            raise UserError("data.max_token_len_per_gpu", data.max_token_len_per_gpu, remedy)
        if key == "train" and len(kept) < data.train_batch_size:
            remedy = f"only {len(kept)} trajectories fit data.max_length: lower it, or raise data.max_length"
            raise UserError("data.train_batch_size", data.train_batch_size, remedy)


def _rows(records: Sequence[RoleTrajectory], tokenizer: Any, prompts: RolePrompts, *, key: str) -> list[RoleRow]:
    rows = []
    for number, (roles, record) in enumerate(records, start=1):
        try:
            rows.append(role_row(tokenizer, roles, prompts, record))
        # a word that the tokenizer does not know is a plain exception of its library
        except Exception as error:
            remedy = f"cannot be rendered by the model's tokenizer and chat template ({shorten(str(error), 200)})"
            where = f"trajectory {number} of the role {' and '.join(roles)}"
            raise UserError(key, where, f"{remedy}: change it, or the prompts") from error
    return rows


def prompts_of(config: DictConfig) -> RolePrompts:
    """The system prompts of both roles, or for both that of a model that writes alone. Raises UserError."""
    if config.longshort.role == ALONE:
        system = str(config.longshort.system_prompt)
        return RolePrompts(long=system, short=system)
    given = plain_dict(config.longshort.environment.prompts)
    return PromptSettings.parse(given, "longshort.environment.prompts").role_prompts


def output_folder(config: DictConfig) -> Path:
    """The folder of the trained policy, absolute and without links. Raises UserError."""
    return real_folder(str(config.longshort.output_dir), key="longshort.output_dir")


def _check_output(config: DictConfig) -> None:
    key, given = "longshort.output_dir", str(config.longshort.output_dir)
    folder, work = output_folder(config), config.trainer.default_local_dir
    if str(work) != f"{given}.partial":
        raise UserError("trainer.default_local_dir", work, "is decided by longshort.output_dir: leave it out")
    base = Path(os.path.realpath(Path(str(config.model.path)).expanduser()))
    if folder == base or folder in base.parents:
        raise UserError(key, given, "would replace the model that is trained, model.path: give another folder")
    own = work_folder(folder)
    left = [path.name for path in own.iterdir()] if own.is_dir() else [own.name] if own.exists() else []
    strange = [name for name in left if not name.startswith(_VERL_FILES)]
    if strange:
        remedy = f"the command works in {own}, which holds {strange[0]}: remove that, or give another folder"
        raise UserError(key, given, remedy)
    there = contents(folder)
    foreign = [path.name for path in there if path.is_dir() or path.suffix not in _MODEL_SUFFIXES]
    if foreign or (there and not (folder / SUMMARY_FILE).is_file()):
        what = f"{foreign[0]}, which is no part of one" if foreign else f"no {SUMMARY_FILE}"
        remedy = f"only a model that `longshort sft` wrote is replaced, and this folder has {what}: give a new folder"
        raise UserError(key, given, remedy)


def _check_settings(config: DictConfig) -> None:
    """The rest that would be found out after training, or be ignored."""
    ours, model, trainer = config.longshort, config.model, config.trainer
    epochs = trainer.total_epochs
    if not isinstance(epochs, int) or isinstance(epochs, bool) or epochs < 1:
        raise UserError("trainer.total_epochs", epochs, "set a whole number of 1 or more")
    for key in ("test_freq", "save_freq"):
        every = trainer[key]
        if every not in (-1, "after_each_epoch") and (not isinstance(every, int) or every < 1):
            raise UserError(f"trainer.{key}", every, "must be -1, after_each_epoch or a number of steps, 1 or more")
    share = ours.held_out
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share < 1:
        raise UserError("longshort.held_out", share, "must be a share of the problems, from 0 to below 1")
    if share and config.data.val_files:
        remedy = "held-out trajectories are given by data.val_files already: leave one of the two out"
        raise UserError("longshort.held_out", share, remedy)
    if ours.export_epoch not in (None, "best", "last"):
        raise UserError("longshort.export_epoch", ours.export_epoch, "must be best, last or null")
    if ours.export_epoch == "best" and not measures(config):
        remedy = "needs held-out trajectories: give longshort.held_out or data.val_files"
        raise UserError("longshort.export_epoch", "best", remedy)
    if trainer.test_freq != -1 and not measures(config):
        remedy = "there are no held-out trajectories: give longshort.held_out or data.val_files, or leave it out"
        raise UserError("trainer.test_freq", trainer.test_freq, remedy)
    if "hf_model" not in config.checkpoint.save_contents:
        remedy = "the trained policy is exported from hf_model: add it"
        raise UserError("checkpoint.save_contents", list(config.checkpoint.save_contents), remedy)
    if trainer.resume_mode != "disable":
        raise UserError("trainer.resume_mode", trainer.resume_mode, "a fine-tuning starts afresh: leave it out")
    if model.lora_adapter_path is not None and not model.lora_rank:
        remedy = "verl ignores it without model.lora_rank: give the adapter's rank"
        raise UserError("model.lora_adapter_path", model.lora_adapter_path, remedy)


def measures(config: DictConfig) -> bool:
    """Whether there are held-out trajectories."""
    return bool(config.longshort.held_out or config.data.val_files)
