"""`longshort sft`."""

from verl_longshort.base.stage import TrainingSettings, TrainingStage
from verl_longshort.verl_plugin.trainer.requirements import sft_requirements
from verl_longshort.verl_plugin.trainer.sft import checked_config, fine_tune


class SftStage(TrainingStage):
    """Fine-tune one role on joint trajectories (config/sft.yaml)."""

    name = "sft"
    checked_config = staticmethod(checked_config)
    required = staticmethod(sft_requirements)
    train = staticmethod(fine_tune)

    def log(self, settings: TrainingSettings) -> None:
        """Its folder is gone in the end."""
