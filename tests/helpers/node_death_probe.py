"""A run without verl on an existing Ray cluster, under the runner that watches it; see `test_node_death.py`.

Arguments: the run's folder, and what its task runner does after its ranks are placed: it `calls` them, as a
training step does, or `sleeps`, as a run does that waits for an answer of the dead.
"""

import os
import sys
import time
from pathlib import Path
from typing import Any

import ray
from longshort_reward.errors import UserError
from longshort_reward.protocol import Role
from omegaconf import DictConfig, OmegaConf
from ray.exceptions import RayError

from verl_longshort.base.errors import RunDiedError
from verl_longshort.verl_plugin.run import watch
from verl_longshort.verl_plugin.run.activity import ActivityFile, node_of_worker
from verl_longshort.verl_plugin.run.cluster import carry_environment, point_at_cluster, requested_address
from verl_longshort.verl_plugin.run.runner import WatchedRunner

SHORT_GRACE_S = 5.0


@ray.remote(num_gpus=1, num_cpus=3)
class Rank:
    """Holds a device, and waits."""

    def wait(self) -> None:
        time.sleep(600)


@ray.remote
class TaskRunner:
    """Places a rank on each node, says so, and waits for them or for nothing."""

    def run(self, config: DictConfig) -> None:
        ranks = [Rank.options(scheduling_strategy="SPREAD").remote() for _ in range(config.trainer.nnodes)]
        nodes = ray.get([rank.__ray_call__.remote(node_of_worker) for rank in ranks])
        file = ActivityFile(config.trainer.default_local_dir, total=6)
        file.set_ranks({Role.LONG: nodes, Role.SHORT: nodes})
        file.now(3, os.environ["LONGSHORT_DOING"])
        if config.doing == "calls":
            ray.get([rank.wait.remote() for rank in ranks])
        time.sleep(600)


def main() -> int:
    folder, doing = sys.argv[1:]
    # the grace is for a real run's clean end
    watch.GRACE_S = SHORT_GRACE_S
    ray_init = {"address": None, "num_cpus": 1, "num_gpus": 1}
    trainer = {"nnodes": 2, "n_gpus_per_node": 1, "device": "cpu", "default_local_dir": folder}
    blocks = {"ray_kwargs": {"ray_init": ray_init}, "trainer": trainer, "longshort": {"phase_timeout_s": 600}}
    config = OmegaConf.create({**blocks, "doing": doing})
    point_at_cluster(config, pools=1)
    carry_environment(config, os.environ)
    models = {"model": str(Path(folder).parent)}
    runner = WatchedRunner(TaskRunner, config, pools=1, models=models, command=("longshort", "train"))
    try:
        return run(runner, config)
    except UserError as error:
        print(error, flush=True)
        return 2
    except RunDiedError as error:
        print(error, flush=True)
        return 1


def run(runner: Any, config: DictConfig) -> int:
    """What verl's `run_ppo` and our `run_verl` do with a runner."""
    assert requested_address(config)
    ray.init(**OmegaConf.to_container(config.ray_kwargs.ray_init))
    try:
        ray.get(runner.remote().run.remote(config))
    except RayError as error:
        raise runner.explain(error) from error
    finally:
        runner.stop_watching()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
