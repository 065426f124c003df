"""What a user should know of a run that can start: settings that are permitted and rarely meant. Imports no verl."""

from omegaconf import DictConfig

from verl_longshort.verl_plugin.checks.learning_checks import compares


def notes_of(config: DictConfig) -> list[str]:
    """Full sentences without a full stop, about a checked configuration of a run."""
    data, trainer, rollout = config.data, config.trainer, config.actor_rollout_ref.rollout
    batch, mini = data.train_batch_size, config.actor_rollout_ref.actor.ppo_mini_batch_size
    estimator = str(config.algorithm.adv_estimator)
    validated = rollout.val_kwargs
    notes = []
    if batch % mini:
        notes.append(
            f"data.train_batch_size={batch} is no multiple of ppo_mini_batch_size={mini}: verl fills each "
            f"step up to {-(-batch // mini) * mini} prompts with padding"
        )
    if rollout.n == 1 and compares(estimator):
        notes.append(
            f"actor_rollout_ref.rollout.n=1: {estimator} compares the trajectories of one problem, and there is one; "
            "without a baseline every rewarded trajectory is reinforced"
        )
    if rollout.n > 1 and rollout.temperature == 0:
        notes.append(
            f"actor_rollout_ref.rollout.temperature=0: the {rollout.n} trajectories of a problem are the same, so that "
            "a group teaches nothing"
        )
    if validated.n > 1 and validated.temperature == 0:
        notes.append(
            f"actor_rollout_ref.rollout.val_kwargs.temperature=0: the {validated.n} answers to a problem are the same"
        )
    if trainer.save_freq <= 0:
        notes.append(
            f"trainer.save_freq={trainer.save_freq}: nothing is saved, so the run cannot be resumed and leaves no model"
        )
    if trainer.test_freq <= 0 and not trainer.val_only:
        notes.append(f"trainer.test_freq={trainer.test_freq}: the models are not validated while they are trained")
    return notes
