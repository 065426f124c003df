"""Fine-tunes a policy for one role, or both, on joint trajectories with verl's own SFT trainer.

`checked_config` checks what was given in seconds, `fine_tune` trains: in this process for one device, through
torchrun for several. What torchrun starts is the package (`__main__.py`), so a multi-node run is

    torchrun --nnodes 2 --nproc-per-node 8 ... -m verl_longshort.verl_plugin.sft longshort.role=long ...

The result, `longshort.output_dir`, is a Hugging Face folder that appears in one step: a run that is killed leaves
at most a folder named `.partial` next to it (`base/folders.py`).
"""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence

from longshort_reward.errors import UserError
from omegaconf import DictConfig

from verl_longshort.config.compose import compose_config
from verl_longshort.verl_plugin.sft.sft_checks import check, check_rows
from verl_longshort.verl_plugin.versions import check_verl

MODULE = "verl_longshort.verl_plugin.sft"


def checked_config(overrides: Sequence[str]) -> DictConfig:
    """`config/sft.yaml` with Hydra's `key=value`, checked. Light.

    Raises UserError when a setting or an input cannot be used.
    """
    check_verl()
    config = compose_config("sft", overrides)
    check(config)
    return config


def fine_tune(config: DictConfig, overrides: Sequence[str]) -> None:
    """Train as the checked configuration says, which `overrides` gave.

    Ends the process with torchrun's status if that is not 0. Raises UserError as `check_rows`, and when several nodes
    are asked for: torchrun has to be started on each of them.
    """
    trainer, started_by_torchrun = config.trainer, "RANK" in os.environ
    if trainer.nnodes > 1 and not started_by_torchrun:
        remedy = f"start every node yourself: torchrun --nnodes ... -m {MODULE} key=value ..."
        raise UserError("trainer.nnodes", trainer.nnodes, remedy)
    check_rows(config)
    if trainer.n_gpus_per_node > 1 and not started_by_torchrun:
        arguments = ["--standalone", "--nproc-per-node", str(trainer.n_gpus_per_node)]
        status = run_and_wait([sys.executable, "-m", "torch.distributed.run", *arguments, "-m", MODULE, *overrides])
        if status:
            raise SystemExit(status)
        return
    from verl_longshort.verl_plugin.sft.trainer import train

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
