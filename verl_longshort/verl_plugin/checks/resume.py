"""Where a run of a pair begins, and what must be the same when it goes on. Imports no verl.

`resume_point` finds the checkpoint: of the run itself, or of another one that is forked. `checked_resume` compares what
the checkpoint's state says (`plan_of`, `data_identity`, `policy_identity`) with the configuration: in a resumed run
whatever differs is refused with the remedy; a fork is a run of its own, so there it is said.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

from longshort_reward.errors import UserError
from omegaconf import DictConfig, OmegaConf

from verl_longshort.base.checkpoint import DATA, STATE, TRACKER, CheckpointStore, PairState
from verl_longshort.config.pair import PairSettings, plain_dict, policy_key
from verl_longshort.core.policies import players
from verl_longshort.verl_plugin.checks.data_checks import read_all
from verl_longshort.verl_plugin.checks.policy_config import has_critic

FOLDER = "trainer.default_local_dir"
PATH = "trainer.resume_from_path"
FORK = f"fork the run into a new folder (trainer.resume_mode=resume_path {PATH}=<checkpoint> {FOLDER}=<new folder>)"

_MODEL_FILES = (
    "config.json",
    "adapter_config.json",
    "tokenizer*",
    "*.model",
    "vocab.*",
    "merges.txt",
    "chat_template*",
)
_WEIGHTS = ("*.safetensors", "*.bin")
_SAMPLE = 1 << 16


@dataclass(frozen=True, kw_only=True)
class Resume:
    """Where a run writes its checkpoints, and the checkpoint that it begins with."""

    store: CheckpointStore
    source: CheckpointStore
    """Only read, where it is not `store`."""
    step: int | None
    """None: the run begins with the policies' models."""
    notes: list[str] = field(default_factory=list)
    """What a user should know about it, a line each."""

    @property
    def is_fork(self) -> bool:
        """Whether the run begins with a checkpoint of another run."""
        return self.source.root != self.store.root


def resume_point(trainer: DictConfig) -> Resume:
    """Where the run of a pair begins.

    Raises UserError for a path or a tracker file that leads to no whole checkpoint of a pair, and where checkpoints
    that are there already would be overwritten.
    """
    store = CheckpointStore(trainer.default_local_dir)
    foreign = sorted(store.root.glob("global_step_*/actor"))
    if foreign:
        remedy = f"holds checkpoints of a single model's run ({foreign[0].parent.name}): give another folder"
        raise UserError(FOLDER, store.root, remedy)
    if trainer.resume_mode == "auto":
        found = store.find()
        return Resume(store=store, source=store, step=found.step, notes=list(found.notes))
    if trainer.resume_mode == "disable":
        if steps := store.steps():
            there = ", ".join(map(str, steps))
            remedy = (
                f"holds the checkpoints of an earlier run (steps {there}), which a new one would overwrite: to resume "
                "it leave out trainer.resume_mode, to begin anew give a new folder"
            )
            raise UserError(FOLDER, store.root, remedy)
        return Resume(store=store, source=store, step=None)
    if trainer.resume_mode != "resume_path":
        raise UserError("trainer.resume_mode", trainer.resume_mode, "must be auto, disable or resume_path")
    return _from_path(store, trainer.resume_from_path)


def _from_path(store: CheckpointStore, given: str | None) -> Resume:
    folder = Path(given or "").absolute()
    number = folder.name.removeprefix("global_step_")
    if not given or not (folder / STATE).is_file() or not number.isdigit():
        remedy = f"is no checkpoint of a pair: give the folder global_step_<n> with a {STATE}"
        raise UserError(PATH, given, remedy)
    resume = Resume(store=store, source=CheckpointStore(folder.parent), step=int(number))
    assert resume.step is not None
    if defect := resume.source.defect(resume.step):
        whole = [step for step in resume.source.steps() if resume.source.defect(step) is None]
        others = f"give another one (whole: {', '.join(map(str, whole))})" if whole else "no other one there is whole"
        raise UserError(PATH, given, f"the checkpoint is incomplete, {defect}: {others}")
    if not resume.is_fork:
        later = [step for step in store.steps() if step > resume.step and store.defect(step) is None]
        if later:
            remedy = (
                f"the run has gone on to step {later[-1]}, which would be overwritten: to go on from there leave out "
                f"trainer.resume_mode, to go another way from step {resume.step} give a new {FOLDER}"
            )
            raise UserError(PATH, given, remedy)
    return resume


def checked_resume(config: DictConfig, settings: PairSettings, policies: Mapping[str, Any]) -> Resume:
    """Where the run of a pair begins, when its configuration fits to the checkpoint.

    Args:
        config: composed, not resolved.
        settings: its `longshort` block.
        policies: the resolved configurations by name.

    Raises:
        UserError: the run cannot go on like this, or would go on as another one.
    """
    _check_rotation(config, policies)
    check_subsets(config)
    resume = resume_point(config.trainer)
    if resume.step is None:
        return resume
    state = resume.source.load(resume.step, settings.schedule)
    _check_players(settings, state)
    if resume.is_fork:
        learners = [name for name, roles in settings.players.items() if settings.schedule.updates(roles[0])]
        _check_fork(config.trainer, resume, learners)
    elif defect := resume.store.best_defect(resume.step):
        resume.notes.append(f"{defect}: it is written again as it was at step {resume.step}")
    _check_policies(policies, state)
    _check_data(config, state, resume)
    _check_plan(config, settings, policies, state, resume)
    if resume.step >= (last := settings.schedule.total_steps):
        resume.notes.append(f"nothing left to train: step {resume.step} of {last} is done")
    return resume


def _check_players(settings: PairSettings, state: PairState) -> None:
    """Raise UserError when the checkpoint is of two policies and the run of one that plays both roles, or reversed."""
    was_tied = set(state.policies) == set(players(tied=True))
    if was_tied != settings.tied:
        trained = "one policy for both roles" if was_tied else "a policy for each role"
        remedy = f"step {state.step} was trained with {trained}: set {str(was_tied).lower()}, or begin in a new folder"
        raise UserError("longshort.tied", str(settings.tied).lower(), remedy)


def _check_fork(trainer: DictConfig, resume: Resume, learners: Sequence[str]) -> None:
    """Raise UserError for a fork of an incomplete checkpoint, or one that would damage either run."""
    assert resume.step is not None
    needed = [resume.source.policy_folder(name, resume.step) / "actor" for name in learners]
    needed.append(resume.source.pair_folder(resume.step) / DATA)
    lacking = [path for path in needed if not path.exists()]
    if lacking:
        remedy = f"the checkpoint is incomplete, {lacking[0]} is missing: give another one"
        raise UserError(PATH, trainer.resume_from_path, remedy)
    if trainer.del_local_ckpt_after_load:
        remedy = "would delete the run that is forked; set false"
        raise UserError("trainer.del_local_ckpt_after_load", True, remedy)
    if resume.store.steps():
        remedy = (
            "has checkpoints of its own: to resume that run leave out trainer.resume_mode, to fork "
            f"{resume.source.root} once more give a new folder"
        )
        raise UserError(FOLDER, resume.store.root, remedy)


def _check_policies(policies: Mapping[str, Any], state: PairState) -> None:
    for name, was in state.policies.items():
        now = policy_identity(policies[name])
        for key, value in was.items():
            if now.get(key, value) == value or key in ("path", "saved"):
                continue
            if key == "model":
                key, value = "actor_rollout_ref.model.path", was["path"]
                remedy = f"is another model than step {state.step} was trained from: give {value}, or"
                raise UserError(f"{policy_key(name)}.{key}", now["path"], f"{remedy} begin anew in a new folder")
            remedy = f"step {state.step} was trained with {value}: give that, or begin anew in a new folder"
            raise UserError(f"{policy_key(name)}.{key}", now[key], remedy)


def _check_data(config: DictConfig, state: PairState, resume: Resume) -> None:
    now = data_identity(config)
    for split, was in state.data.items():
        for key in dict.fromkeys([*was, *now[split]]):
            own, value = now[split].get(key), was.get(key)
            if own == value:
                continue
            if not resume.is_fork:
                shown = OmegaConf.select(config, key)
                remedy = f"is {own}, and the run began with {value}: give what it began with, or {FORK}"
                raise UserError(key, shown, remedy)
            then = "the training data begins anew" if split == "train" else "its start is not compared with"
            resume.notes.append(f"{key} is {own}, and was {value} in the run that is forked: {then}")


def _check_plan(
    config: DictConfig, settings: PairSettings, policies: Mapping[str, Any], state: PairState, resume: Resume
) -> None:
    now = plan_of(settings, policies)
    moved = {key: (state.plan[key], end) for key, end in now.items() if state.plan.get(key, end) != end}
    given = {key for key in moved if _is_given(key, config, policies)}
    if silent := [f"{key} {was} -> {end}" for key, (was, end) in moved.items() if key not in given]:
        before = len(state.schedule) * state.steps_per_round
        if not resume.is_fork:
            remedy = (
                f"the run was on the way to step {before}, and on the way to step {settings.schedule.total_steps} "
                f"these would move: {', '.join(silent)}; give each the value that it shall have"
            )
            raise UserError("longshort.schedule", [r.value for r in settings.schedule.rounds], remedy)
        resume.notes.append(f"the fork has ends of its own: {', '.join(silent)}")
    resume.notes.extend(f"{key} {moved[key][0]} -> {moved[key][1]}, as given" for key in sorted(given))


def plan_of(settings: PairSettings, policies: Mapping[str, Any]) -> dict[str, int]:
    """Where the reward's ramps (step) and the learning rates' schedules (updates) of a run end, by configuration key.

    What stays the same throughout has no end. `policies` are the resolved configurations by name.
    """
    ramps = {"mu": settings.weights.mu, **{f"terms.{name}": ramp for name, ramp in settings.weights.terms.items()}}
    plan = {f"longshort.reward.{key}.end_step": ramp.end_step for key, ramp in ramps.items() if ramp.start != ramp.end}
    for name, roles in settings.players.items():
        updates = settings.schedule.updates(roles[0])
        for key, optimizer in _optimizers(name, policies[name]) if updates else ():
            kind = optimizer.get("warmup_style") or optimizer["lr_scheduler_type"]
            if kind != "constant" or optimizer["lr_warmup_steps_ratio"]:
                plan[key] = optimizer_horizon(optimizer, updates)
    return plan


def optimizer_horizon(optimizer: Mapping[str, Any], updates: int) -> int:
    """Updates over which a learning rate is scheduled: what the user gave, else all of the run's."""
    given: int = optimizer["total_training_steps"] or 0
    return given if given > 0 else updates


def _optimizers(name: str, policy: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    where = policy_key(name)
    yield f"{where}.actor_rollout_ref.actor.optim.total_training_steps", policy["actor_rollout_ref"]["actor"]["optim"]
    if has_critic(policy):
        yield f"{where}.critic.optim.total_training_steps", policy["critic"]["optim"]


def _is_given(key: str, config: DictConfig, policies: Mapping[str, Any]) -> bool:
    """Whether the user gave the end, which otherwise follows from the schedule."""
    for policy in policies:
        for name, optimizer in _optimizers(policy, policies[policy]):
            if name == key:
                return optimizer_horizon(optimizer, 0) > 0
    reward = plain_dict(config.longshort.reward)
    name = key.removeprefix("longshort.reward.").removesuffix(".end_step")
    ramp = reward["mu"] if name == "mu" else reward["terms"][name.removeprefix("terms.")]
    return ramp["end_step"] is not None


def data_identity(config: DictConfig) -> dict[str, dict[str, Any]]:
    """What decides which problems a run meets, in which order, and how it validates, by split and configuration key."""
    data, values = config.data, config.actor_rollout_ref.rollout.val_kwargs
    train = _split(data, "train")
    train["data.train_batch_size"] = data.train_batch_size
    train["data.shuffle"] = bool(data.shuffle)
    if data.filter_overlong_prompts:
        train["data.max_prompt_length"] = data.max_prompt_length
    validation = _split(data, "val")
    for name in ("n", "do_sample", "temperature", "top_p", "top_k"):
        validation[f"actor_rollout_ref.rollout.val_kwargs.{name}"] = values[name]
    return {"train": train, "val": validation}


def _check_rotation(config: DictConfig, policies: Mapping[str, Any]) -> None:
    """Raise UserError for verl's own deletion of checkpoints, which would take a policy's and leave its partner's."""
    for key in ("max_actor_ckpt_to_keep", "max_critic_ckpt_to_keep", "remove_previous_ckpt_in_save"):
        for name, policy in policies.items():
            if value := policy["trainer"].get(key):
                where = "" if config.trainer.get(key) else f"{policy_key(name)}."
                remedy = (
                    "would delete one policy's checkpoints alone; give longshort.keep_checkpoints, and leave it out"
                )
                raise UserError(f"{where}trainer.{key}", value, remedy)


def check_single_checkpoint(trainer: DictConfig) -> None:
    """Raise UserError for a checkpoint of a single model's run that verl would not survive to resume from.

    verl itself reads the tracker file, so a whole checkpoint can only be offered.
    """
    root = Path(trainer.default_local_dir).absolute()
    tracker = root / TRACKER
    if trainer.resume_mode != "auto" or not tracker.is_file():
        return
    text = tracker.read_text(encoding="utf-8", errors="replace").strip()
    defect = _single_defect(root / f"global_step_{text}") if text.isdigit() else "names no step"
    if defect is not None:
        folders = (folder for folder in root.glob("global_step_*") if _single_defect(folder) is None)
        whole = ", ".join(sorted((folder.name.rsplit("_", 1)[1] for folder in folders), key=int))
        advice = f"write the step of a whole checkpoint into it ({whole})" if whole else "no checkpoint there is whole"
        raise UserError(str(tracker), text, f"{defect}: {advice}, or train in a new folder ({FOLDER})")


def _single_defect(folder: Path) -> str | None:
    if not list(folder.glob("actor/*.pt")):
        return f"{folder / 'actor'} holds no checkpoint"
    if not (folder / DATA).is_file():
        return f"{folder / DATA} is missing"
    return next((f"{file} is truncated" for file in sorted(folder.rglob("*.pt")) if not is_zipfile(file)), None)


def check_subsets(config: DictConfig) -> None:
    """Raise UserError for a random subset of the problems that would be another one at each start of the run."""
    for key in ("data.train_max_samples", "data.val_max_samples"):
        if OmegaConf.select(config, key) > 0 and config.data.shuffle and config.data.seed is None:
            remedy = "is another subset at each start of the run while data.seed is null: give data.seed a number"
            raise UserError(key, OmegaConf.select(config, key), remedy)


def _split(data: DictConfig, split: str) -> dict[str, Any]:
    files = data[f"{split}_files"]
    rows = read_all(files, key=f"data.{split}_files", columns=())
    digest = hashlib.sha256()
    for row in rows:
        problem = [row.get(name) for name in ("data_source", "prompt", "reward_model")]
        digest.update(json.dumps(problem, sort_keys=True, default=str).encode())
    identity: dict[str, Any] = {f"data.{split}_files": f"{len(rows)} problems ({digest.hexdigest()[:12]})"}
    most = data[f"{split}_max_samples"]
    if 0 < most < len(rows):
        identity[f"data.{split}_max_samples"] = most
        if data.shuffle:
            identity["data.seed"] = data.seed
    return identity


def policy_identity(policy: Mapping[str, Any]) -> dict[str, Any]:
    """What a policy's checkpoint belongs to, by configuration key: its model, LoRA adapters, strategy, critic.

    The model is known by its content, so that a folder may be moved; one of the hub by its name.
    """
    own = policy["actor_rollout_ref"]
    path = str(own["model"]["path"])
    return {
        "path": path,
        "model": _fingerprint(path),
        "actor_rollout_ref.model.lora_rank": own["model"]["lora_rank"],
        **(_adapters(own["model"]) if own["model"]["lora_rank"] else {}),
        "actor_rollout_ref.actor.strategy": own["actor"]["strategy"],
        "critic.enable": has_critic(policy),
        "saved": list(own["actor"]["checkpoint"]["save_contents"]),
    }


def _adapters(model: Mapping[str, Any]) -> dict[str, Any]:
    """What decides where the adapters are, and how much they count."""
    names = ("lora_alpha", "target_modules", "exclude_modules")
    return {f"actor_rollout_ref.model.{name}": model[name] for name in names}


def _fingerprint(model: str) -> str:
    """Of configuration, tokenizer and weights; of the weights a few samples, since they may be large."""
    folder = Path(model).expanduser()
    if not folder.is_dir():
        return model
    digest = hashlib.sha256()
    for file in sorted({file for pattern in _MODEL_FILES for file in folder.glob(pattern)}):
        digest.update(file.name.encode() + file.read_bytes())
    for file in sorted({file for pattern in _WEIGHTS for file in folder.glob(pattern)}):
        size = file.stat().st_size
        digest.update(f"{file.name} {size}".encode())
        with file.open("rb") as weights:
            for place in (0, size // 2, max(size - _SAMPLE, 0)):
                weights.seek(place)
                digest.update(weights.read(_SAMPLE))
    return digest.hexdigest()[:16]
