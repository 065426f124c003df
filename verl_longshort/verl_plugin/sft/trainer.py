"""The part of SFT that needs torch and verl: one rank of verl's SFT trainer and the export of its result.

`train(overrides)` runs one rank. `ReportingSFTTrainer` is verl's trainer with progress reports, a record of the losses,
and a choice of the epoch to keep.
"""

import os
import shutil
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from longshort_reward.protocol import ROLES
from omegaconf import DictConfig
from torch.utils.data import DistributedSampler
from torchdata.stateful_dataloader import StatefulDataLoader
from verl.trainer.sft_trainer import SFTTrainer
from verl.utils import tensordict_utils
from verl.utils.config import omega_conf_to_dataclass
from verl.utils.device import get_device_name
from verl.utils.distributed import destroy_global_process_group, initialize_global_process_group

from verl_longshort.base.console import say
from verl_longshort.base.files import write_json
from verl_longshort.base.folders import replace_folder, restore, work_folder, writing
from verl_longshort.base.policy_record import SUMMARY_FILE
from verl_longshort.base.progress import report
from verl_longshort.config.compose import compose_config
from verl_longshort.core import policies
from verl_longshort.data.sft_dataset import TrajectoryDataset
from verl_longshort.verl_plugin.platform.cpu import open_process_group
from verl_longshort.verl_plugin.sft.sft_checks import measures, output_folder, prompts_of
from verl_longshort.verl_plugin.trainer.exports import finish_export
from verl_longshort.verl_plugin.trainer.learning import set_horizon

CPU_OVERRIDES = (
    "trainer.device=cpu",
    "engine.use_torch_compile=false",
    "+engine.mixed_precision={param_dtype:fp32,reduce_dtype:fp32,buffer_dtype:fp32}",
    "+model.override_config.attn_implementation=sdpa",
    # Without flash attention packed rows also compute the masked blocks between them: three times the time.
    "model.use_remove_padding=false",
    "model.enable_gradient_checkpointing=false",
)
"""What verl needs for a CPU; the user's overrides come after and win."""

ALONE = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
"""The place of one process that was started without torchrun: a group of one."""


class ReportingSFTTrainer(SFTTrainer):
    """verl's SFT trainer; it reports progress, keeps the losses and knows which checkpoint is the best.

    With held-out trajectories verl measures their loss after each epoch. Where the best epoch is wanted, a checkpoint
    is written only when it is the best so far.
    """

    losses: list[float]
    """Of each step's batch, on rank 0; nats per token."""
    tokens: int
    """That were learned from so far, on all ranks; a token of each epoch counts."""
    rates: list[float]
    """Learning rate of each step, on rank 0."""
    held_out: dict[int, float]
    """Loss on the held-out trajectories after so many steps, on all ranks; nats per token."""
    saved: int | None = None
    """The step of the checkpoint to export."""

    def _build_dataset(self) -> None:
        super()._build_dataset()
        made: TrajectoryDataset = self.train_dataset  # type: ignore[has-type]
        self.left_out = made.left_out
        self.longest = max(len(row["input_ids"]) for row in made.rows)
        if share := self.config.longshort.held_out:
            self.train_dataset, self.val_dataset = made.split(share)

    def _build_dataloader(self) -> None:
        super()._build_dataloader()
        if self.val_dataset:
            # verl's own drops the last, incomplete batch, which may be all there is
            ranks, rank = self.engine.get_data_parallel_size(), self.engine.get_data_parallel_rank()
            self.val_dataloader = StatefulDataLoader(
                dataset=self.val_dataset,
                batch_size=self.train_batch_size_per_dp,
                sampler=DistributedSampler(self.val_dataset, shuffle=False, num_replicas=ranks, rank=rank),
                collate_fn=self.collate_fn,
                num_workers=self.config.data.num_workers,
            )

    def _init_engine(self) -> None:
        initialize = self.training_client.reset

        def initialize_with_schedule() -> None:
            optim = self.config.optim.copy()
            set_horizon(optim, self.total_training_steps)
            self.engine.optimizer_config = omega_conf_to_dataclass(optim)
            initialize()

        # only now the number of steps is known
        self.training_client.reset = initialize_with_schedule
        super()._init_engine()
        self.losses, self.rates, self.held_out, self.steps, self.tokens = [], [], {}, 0, 0
        self._started = time.monotonic()
        self._sums: dict[int, list[float]] = defaultdict(lambda: [0.0, 0.0])
        # verl has no hook per step, and its trackers are a closed list.
        self._train_batch, self._infer_batch = self.training_client.train_batch, self.training_client.infer_batch
        self.training_client.train_batch, self.training_client.infer_batch = self._train, self._measure

    def _build_ckpt_handler(self) -> None:
        super()._build_ckpt_handler()
        save = self.ckpt_handler.save_checkpoint

        def save_if_wanted(step: int) -> None:
            if self._wanted(step):
                with writing(Path(self.config.trainer.default_local_dir), Path(self.config.longshort.output_dir)):
                    save(step=step)
                self.saved = step

        self.ckpt_handler.save_checkpoint = save_if_wanted

    def _train(self, data: Any) -> Any:
        rate = self.engine.optimizer.param_groups[0]["lr"]
        taught = _taught(data)
        output = self._train_batch(data=data)
        self.steps += 1
        # ranks that share a sequence have the same batch
        self.tokens += int(taught) * self.engine.get_data_parallel_size() // torch.distributed.get_world_size()
        if self.rank == 0:
            self.rates.append(rate)
            self.losses.append(float(tensordict_utils.get(output, "metrics")["loss"]))
            done, total = self.steps, self.total_training_steps
            report(done, total, f"step {done}/{total}, loss {self.losses[-1]:.3f}")
        return output

    def _measure(self, data: Any) -> Any:
        # batches of a given size would have to fill up
        tensordict_utils.assign_non_tensor(data, use_dynamic_bsz=True)
        output = self._infer_batch(data)
        # the loss is a mean over all ranks' tokens, and batches have different numbers of them
        tokens = _taught(data)
        if self.rank == 0:
            sums = self._sums[self.steps]
            sums[0] += float(tensordict_utils.get(output, "metrics")["loss"]) * tokens
            sums[1] += tokens
        return output

    def _wanted(self, step: int) -> bool:
        """Whether the model of `step` is to be written: of all ranks, rank 0 decides."""
        if self.val_dataset is None:
            return True
        told: list[float | None] = [None]
        if self.rank == 0 and step in self._sums:
            loss, tokens = self._sums[step]
            told = [loss / tokens]
        torch.distributed.broadcast_object_list(told, src=0)
        if told[0] is None:
            return False
        best = min(self.held_out.values(), default=None)
        self.held_out[step] = told[0]
        return self.config.longshort.export_epoch == "last" or best is None or told[0] < best

    def summary(self) -> dict[str, Any]:
        """What `longshort_sft.json` says; on rank 0."""
        per_epoch = self.steps_per_epoch
        ends = sorted({*range(per_epoch, self.steps + 1, per_epoch), self.steps})
        epochs = [
            {
                "epoch": number,
                "steps": end,
                "loss": sum(self.losses[(number - 1) * per_epoch : end]) / (end - (number - 1) * per_epoch),
                "held_out_loss": self.held_out.get(end),
            }
            for number, end in enumerate(ends, start=1)
        ]
        return {
            "trajectories": len(self.train_dataset),
            "held_out": len(self.val_dataset) if self.val_dataset else 0,
            "left_out_too_long": self.left_out,
            "longest": self.longest,
            "steps": self.steps,
            "learned_tokens": self.tokens,
            "seconds": round(time.monotonic() - self._started, 1),
            "epochs": epochs,
            "exported_epoch": next(epoch["epoch"] for epoch in epochs if epoch["steps"] >= (self.saved or 0)),
            "losses": self.losses,
            "learning_rates": self.rates,
        }


def _taught(data: Any) -> float:
    """Tokens of a batch, [rows of any length], that the loss is on; all ranks together."""
    tokens = data["loss_mask"].values().sum().to(get_device_name(), torch.float64)
    torch.distributed.all_reduce(tokens)
    return float(tokens)


def train(overrides: Sequence[str]) -> None:
    """Run this process's rank of the training that `overrides` describe, and export the result on rank 0."""
    on_cpu = get_device_name() == "cpu"
    config = compose_config("sft", [*(CPU_OVERRIDES if on_cpu else ()), *overrides])
    output = output_folder(config)
    work = work_folder(output)
    _settle(config, output, work)
    if on_cpu:
        open_process_group()
    else:
        for name, value in ALONE.items():
            os.environ.setdefault(name, value)
        initialize_global_process_group()
    try:
        if torch.distributed.get_rank() == 0:
            restore(output)
            shutil.rmtree(work, ignore_errors=True)
        torch.distributed.barrier()
        torch.manual_seed(config.trainer.seed)
        trainer = ReportingSFTTrainer(config)
        trainer.fit()
        if torch.distributed.get_rank() == 0:
            with writing(work, output):
                export(config, trainer, work, output)
    finally:
        destroy_global_process_group()


def _settle(config: DictConfig, output: Path, work: Path) -> None:
    """Put in place what the settings leave open."""
    prompts = prompts_of(config)
    config.longshort.environment.prompts = {str(role): prompts.for_role(role) for role in ROLES}
    config.model.path = str(Path(str(config.model.path)).expanduser())
    config.longshort.output_dir, config.trainer.default_local_dir = str(output), str(work)
    if measures(config):
        if config.trainer.test_freq == -1:
            config.trainer.test_freq = "after_each_epoch"
        if config.longshort.export_epoch is None:
            config.longshort.export_epoch = "best"
        if config.longshort.export_epoch == "best":
            config.trainer.save_freq = config.trainer.test_freq


def export(config: DictConfig, trainer: ReportingSFTTrainer, work: Path, output: Path) -> None:
    """Put the trained policy at `output` in one step, and remove `work`.

    Raises RuntimeError when the trainer left no model.
    """
    model = work / f"global_step_{trainer.saved}" / "huggingface"
    if not (model / "config.json").is_file():
        raise RuntimeError(f"the trainer saved no model under {work}; see the messages above")
    role = str(config.longshort.role)
    # a model alone plays no role: what it writes ends with the whole answer
    finish_export(model, config.model, role=None if role == policies.ALONE else role, prompts=prompts_of(config))
    prompts = dict(config.longshort.environment.prompts)
    summary = {"role": role, "base": str(config.model.path), "prompts": prompts, **trainer.summary()}
    write_json(model / SUMMARY_FILE, summary)
    replace_folder(model, output)
    shutil.rmtree(work, ignore_errors=True)
    say(told(summary, output))


def told(summary: Mapping[str, Any], output: Path) -> str:
    """The summary in a line."""
    last, number = summary["epochs"][-1], summary["exported_epoch"]
    chosen = summary["epochs"][number - 1]
    held_out = "" if chosen["held_out_loss"] is None else f", held-out loss {chosen['held_out_loss']:.3f}"
    left_out = summary["left_out_too_long"]
    dropped = f" ({left_out} longer than data.max_length left out)" if left_out else ""
    return (
        f"{summary['role']} policy of epoch {number} of {last['epoch']}, trained on {summary['trajectories']} "
        f"trajectories{dropped}: loss {chosen['loss']:.3f}{held_out}; {output}"
    )
