"""`longshort sft`."""

from pathlib import Path

from verl_longshort.base.folders import lock_file, work_folder
from verl_longshort.base.lock import Lock
from verl_longshort.base.stage import TrainingSettings, TrainingStage
from verl_longshort.verl_plugin.requirements import sft_requirements
from verl_longshort.verl_plugin.sft.fine_tune import checked_config, fine_tune
from verl_longshort.verl_plugin.sft.sft_checks import output_folder


class SftStage(TrainingStage):
    """Fine-tune one role on joint trajectories (config/sft.yaml)."""

    name = "sft"
    checked_config = staticmethod(checked_config)
    required = staticmethod(sft_requirements)
    train = staticmethod(fine_tune)

    def lock(self, settings: TrainingSettings) -> Lock:
        """Where the work is done: the result appears in one step."""
        folder = output_folder(settings.config)
        return Lock(file=lock_file(folder), key="longshort.output_dir", value=folder, holder="another run")

    def log(self, settings: TrainingSettings) -> Path | None:
        """Beside the trained policy's folder; None where nothing can be beside it."""
        folder = output_folder(settings.config)
        return None if work_folder(folder).parent == folder else folder.with_name(f"{folder.name}.log")
