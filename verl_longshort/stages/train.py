"""`longshort train`."""

from verl_longshort.base.stage import TrainingStage
from verl_longshort.verl_plugin.launch import checked_config, train
from verl_longshort.verl_plugin.requirements import pair_requirements


class TrainStage(TrainingStage):
    """Train the pair by rounds of reinforcement learning (config/longshort_trainer.yaml)."""

    name = "train"
    checked_config = staticmethod(checked_config)
    required = staticmethod(pair_requirements)
    train = staticmethod(train)
