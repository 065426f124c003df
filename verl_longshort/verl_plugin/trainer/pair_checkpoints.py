"""The checkpoints that a pair's run writes, and the one that it begins with. What lies where: `base/checkpoint.py`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from verl_longshort.base.checkpoint import DATA, PairState, Validation
from verl_longshort.base.console import say
from verl_longshort.config.pair import PairSettings, plain_dict
from verl_longshort.core.policies import said_roles
from verl_longshort.verl_plugin.checks.resume import (
    Resume,
    data_identity,
    plan_of,
    policy_identity,
    resume_point,
)
from verl_longshort.verl_plugin.run.unsaved import explain_unsaved
from verl_longshort.verl_plugin.trainer.best_pair import recall, remember
from verl_longshort.verl_plugin.trainer.exports import ADAPTER, finish_export
from verl_longshort.verl_plugin.trainer.policy_trainer import Policy, PolicyTrainer


class PairCheckpoints:
    """Of one run; a policy that has not changed since a checkpoint shares that one's files.

    Args:
        resume: where the run writes, and what it begins with.
        settings: of the run.
        identity: what the run is made of, which a resumed one must agree with; fields of `PairState`.
    """

    def __init__(self, resume: Resume, settings: PairSettings, identity: Mapping[str, Any]) -> None:
        self.store, self.source = resume.store, resume.source
        self.first = resume.step or 0
        """The step after which the run begins."""
        self.saved: int | None = None
        """The step of the last checkpoint."""
        self.written: dict[str, int] = {}
        """The step of the checkpoint that holds a policy's present weights."""
        self._settings = settings
        self._identity = identity

    @classmethod
    def of(cls, config: DictConfig, settings: PairSettings) -> "PairCheckpoints":
        """Of the run with this resolved configuration. Raises UserError as `resume_point` does."""
        policies = plain_dict(config.longshort.policy_configs)
        identity = {
            "plan": plan_of(settings, policies),
            "data": data_identity(config),
            "policies": {name: policy_identity(policy) for name, policy in policies.items()},
        }
        return cls(resume_point(config.trainer), settings, identity)

    def load(self, dataloader: Any) -> Validation | None:
        """Put the training data where they were in the checkpoint that the run begins with.

        Returns what the run's best pair is compared with, where that is known: of a fork, the start of the run that it
        was forked from.
        """
        if not self.first:
            return None
        is_fork = self.source.root != self.store.root
        state = self.source.load(self.first, self._settings.schedule)
        same = {split: state.data.get(split, now) == now for split, now in self._identity["data"].items()}
        start = self.source.first_validation(state) if same["val"] else None
        if is_fork and start is not None:
            for begun in recall(self.source.root, 0).values():
                remember(self.store.root, begun)
        if same["train"]:
            dataloader.load_state_dict(torch.load(self.source.pair_folder(self.first) / DATA, weights_only=True))
        if is_fork:
            return start
        self.saved = self.first
        saved = {name: policy.get("saved") for name, policy in state.policies.items()}
        for name, policy in self._identity["policies"].items():
            if self.store.policy_folder(name, self.first).is_dir() and saved.get(name) == policy["saved"]:
                self.written[name] = self.first
        if self.store.best_defect(self.first):
            self.store.restore_best(state)
        return start

    def save(self, step: int, position: Mapping[str, Any], policies: Mapping[str, Policy]) -> None:
        """Save the pair after `step`, with the place in the training data.

        Raises UnwrittenError when the files cannot be written; what was written of the checkpoint is gone then.
        """
        schedule = self._settings.schedule
        try:
            # what a killed run left of this step may share files with whole checkpoints: never write into it
            self.store.discard(step)
            for policy in policies.values():
                self._save_policy(policy, step)
            folder = self.store.pair_folder(step)
            folder.mkdir(parents=True, exist_ok=True)
            torch.save(position, folder / DATA)
            state = PairState(
                step=step,
                schedule=[r.value for r in schedule.rounds],
                steps_per_round=schedule.steps_per_round,
                environment={**vars(self._settings.limits), "prompts": vars(self._settings.prompts)},
                **self._identity,
            )
            self.store.commit(state)
        except Exception as error:
            raise explain_unsaved(error, self.store, step) from error
        self.saved = step
        self.prune()

    def _save_policy(self, policy: Policy, step: int) -> None:
        written = self.written.get(policy.name)
        if written is not None:
            try:
                self.store.share(policy.name, step, written=written)
            except OSError as error:
                say(f"{policy.name}'s files of step {written} cannot be linked and are written again: {error}")
            else:
                self.written[policy.name] = step
                return
        policy.save(step)
        if isinstance(policy, PolicyTrainer):
            folder, model = Path(policy.exported(step)), policy.config.actor_rollout_ref.model
            adapter = folder.with_name(ADAPTER)
            finish_export(folder, model, role=said_roles(policy.roles), prompts=self._settings.prompts, adapter=adapter)
            self.written[policy.name] = step

    def prune(self) -> None:
        """Delete the checkpoints that need not be kept."""
        schedule = self._settings.schedule
        if self._settings.keep_checkpoints is not None:
            ends = range(0, schedule.total_steps + 1, schedule.steps_per_round)
            self.store.prune(self._settings.keep_checkpoints, spare=ends)
