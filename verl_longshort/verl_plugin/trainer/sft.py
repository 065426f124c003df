"""Fine-tunes one role on joint trajectories with verl's own SFT trainer.

`checked_config` checks what was given in seconds, `fine_tune` trains: in this process for one device, through
torchrun for several. The same module is what torchrun starts, so a multi-node run is

    torchrun --nnodes 2 --nproc-per-node 8 ... -m verl_longshort.verl_plugin.trainer.sft longshort.role=long ...

The result, `longshort.output_dir`, is a Hugging Face folder that appears in one step: a run that is killed leaves
at most a folder named `.partial` next to it.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence

from longshort_reward.errors import UserError
from longshort_reward.protocol import ROLES, Role
from omegaconf import DictConfig

from verl_longshort.base.files import check_model
from verl_longshort.config.compose import compose_config
from verl_longshort.data.records import load_trajectories

MODULE = "verl_longshort.verl_plugin.trainer.sft"


def checked_config(overrides: Sequence[str]) -> DictConfig:
    """`config/sft.yaml` with Hydra's `key=value`, checked. Light.

    Raises UserError when a setting or an input cannot be used.
    """
    config = compose_config("sft", overrides)
    check(config)
    return config


def fine_tune(config: DictConfig, overrides: Sequence[str]) -> None:
    """Train as the checked configuration says, which `overrides` gave.

    Ends the process with torchrun's status if that is not 0. Raises UserError when several nodes are asked for:
    torchrun has to be started on each of them.
    """
    trainer, started_by_torchrun = config.trainer, "RANK" in os.environ
    if trainer.nnodes > 1 and not started_by_torchrun:
        remedy = f"start every node yourself: torchrun --nnodes ... -m {MODULE} key=value ..."
        raise UserError("trainer.nnodes", trainer.nnodes, remedy)
    if trainer.n_gpus_per_node > 1 and not started_by_torchrun:
        arguments = ["--standalone", "--nproc-per-node", str(trainer.n_gpus_per_node)]
        status = run_and_wait([sys.executable, "-m", "torch.distributed.run", *arguments, "-m", MODULE, *overrides])
        if status:
            raise SystemExit(status)
        return
    from verl_longshort.verl_plugin.trainer.sft_run import train

    train(overrides)


def run_and_wait(command: Sequence[str]) -> int:
    """Run a command to its end, whatever signals come; its exit status as a shell gives it.

    torchrun needs time to end its workers, so it is always waited for. A terminal sends Ctrl-C to it as well; SIGTERM
    is passed on.
    """
    process = subprocess.Popen(command)
    handlers = {signal.SIGINT: lambda *_: None, signal.SIGTERM: lambda number, _: process.send_signal(number)}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        status = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return status if status >= 0 else 128 - status


def check(config: DictConfig) -> None:
    """Raise UserError for a role, file, model path or batch that cannot be used. Light."""
    role = config.longshort.role
    if role not in tuple(ROLES):
        raise UserError("longshort.role", role, "must be long or short")
    check_model(str(config.model.path), key="model.path")
    rows = count_trajectories(config)
    batch = config.data.train_batch_size
    # The trainer drops incomplete batches, so a batch larger than the data would train nothing.
    if batch <= 0 or (rows is not None and batch > rows):
        raise UserError("data.train_batch_size", batch, f"must be from 1 to the number of trajectories, {rows}")
    devices = config.trainer.nnodes * config.trainer.n_gpus_per_node
    if batch % devices:
        raise UserError("data.train_batch_size", batch, f"must be a multiple of the number of devices, {devices}")


def count_trajectories(config: DictConfig) -> int | None:
    """How many trajectories are trained on; None when that is not known before the run. Raises UserError."""
    files, limit = config.data.train_files, config.data.train_max_samples
    rows = load_trajectories(files, Role(config.longshort.role)).expected
    return rows if rows is None or limit <= 0 else min(rows, limit)


def _main() -> int:
    try:
        overrides = sys.argv[1:]
        fine_tune(checked_config(overrides), overrides)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(_main())
