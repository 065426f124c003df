"""`longshort train-single`."""

from verl_longshort.base.stage import TrainingStage
from verl_longshort.verl_plugin.launch import checked_single_config, train_single
from verl_longshort.verl_plugin.requirements import single_requirements


class TrainSingleStage(TrainingStage):
    """Train one model that answers alone, the control of a pair (config/single_trainer.yaml)."""

    name = "train-single"
    checked_config = staticmethod(checked_single_config)
    required = staticmethod(single_requirements)
    train = staticmethod(train_single)
