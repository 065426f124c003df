"""The part of SFT that needs torch and verl: one rank of verl's SFT trainer and the export of its result.

`train(overrides)` runs one rank. `ReportingSFTTrainer` is verl's trainer with progress reports and a record
of the loss.
"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from longshort_reward.protocol import ROLES
from verl.trainer.sft_trainer import SFTTrainer
from verl.utils import tensordict_utils
from verl.utils.device import get_device_name
from verl.utils.distributed import destroy_global_process_group, initialize_global_process_group

from verl_longshort.base.files import write_json
from verl_longshort.base.progress import report
from verl_longshort.config.compose import compose_config
from verl_longshort.config.pair import PromptSettings, plain_dict
from verl_longshort.verl_plugin.platform.cpu import open_process_group

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

SUMMARY_FILE = "longshort_sft.json"


class ReportingSFTTrainer(SFTTrainer):
    """verl's SFT trainer; after every step it reports progress and keeps the loss in `losses`."""

    losses: list[float]

    def _init_engine(self) -> None:
        super()._init_engine()
        self.losses = []
        train_batch = self.training_client.train_batch

        def train_and_report(data: Any) -> Any:
            output = train_batch(data=data)
            if self.rank == 0:
                self.losses.append(float(tensordict_utils.get(output, "metrics")["loss"]))
                done, total = len(self.losses), self.total_training_steps
                report(done, total, f"step {done}/{total}, loss {self.losses[-1]:.3f}")
            return output

        # verl has no hook per step, and its trackers are a closed list.
        self.training_client.train_batch = train_and_report


def train(overrides: Sequence[str]) -> None:
    """Run this process's rank of the training that `overrides` describe, and export the result on rank 0."""
    on_cpu = get_device_name() == "cpu"
    config = compose_config("sft", [*(CPU_OVERRIDES if on_cpu else ()), *overrides])
    given = plain_dict(config.longshort.environment.prompts)
    prompts = PromptSettings.parse(given, "longshort.environment.prompts").role_prompts
    config.longshort.environment.prompts = {str(role): prompts.for_role(role) for role in ROLES}
    if on_cpu:
        open_process_group()
    else:
        for name, value in ALONE.items():
            os.environ.setdefault(name, value)
        initialize_global_process_group()
    try:
        work = Path(config.trainer.default_local_dir)
        if torch.distributed.get_rank() == 0:
            shutil.rmtree(work, ignore_errors=True)
        torch.distributed.barrier()
        torch.manual_seed(config.trainer.seed)
        trainer = ReportingSFTTrainer(config)
        trainer.fit()
        if torch.distributed.get_rank() == 0:
            summary = {
                "role": str(config.longshort.role),
                "base": str(config.model.path),
                "trajectories": len(trainer.train_dataset),
                "steps": len(trainer.losses),
                "losses": trainer.losses,
            }
            export(work, Path(config.longshort.output_dir), summary)
    finally:
        destroy_global_process_group()


def export(work: Path, output: Path, summary: dict[str, Any]) -> None:
    """Put the newest Hugging Face folder under `work` at `output` in one step, and remove `work`.

    Raises RuntimeError when the trainer left none.
    """
    found = sorted(work.glob("global_step_*/huggingface/config.json"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise RuntimeError(f"the trainer saved no model under {work}; see the messages above")
    model = found[-1].parent
    write_json(model / SUMMARY_FILE, summary)
    replace_folder(model, output)
    shutil.rmtree(work)


def replace_folder(source: Path, target: Path) -> None:
    """Rename `source` to `target`; an older `target` is moved away first, so `target` is never half one,
    half other.
    """
    old = target.with_name(f"{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        os.replace(target, old)
    os.replace(source, target)
    shutil.rmtree(old, ignore_errors=True)
