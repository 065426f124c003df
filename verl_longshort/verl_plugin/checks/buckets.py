"""Buckets of weights on their way to an engine, sized by the largest weight of the model."""

import math

from omegaconf import DictConfig

from verl_longshort.verl_plugin.rollout.registry import ROLLOUTS

_MIB = 2**20


def size_bucket(config: DictConfig, *, where: str = "") -> str | None:
    """Make verl's bucket hold every weight of a policy that learns, in place; returns a note if it was too small.

    verl sends weights to some engines through a buffer of `update_weights_bucket_megabytes`. Where processes cannot
    share a device's memory, as on a CPU, a weight that does not fit ends the run when the engine is to get it.

    Args:
        config: the policy's verl configuration.
        where: put before its keys in messages.

    Raises:
        UserError: the model's configuration cannot be read.
    """
    from verl.utils.torch_dtypes import PrecisionType

    from verl_longshort.engines.loading import largest_weight

    own = config.actor_rollout_ref
    known = ROLLOUTS.get(own.rollout.name)
    if known is None or not known.fills_buckets:
        return None
    key = f"{where}actor_rollout_ref.model.path"
    name, values = largest_weight(str(own.model.path), key=key, trust_remote_code=own.model.trust_remote_code)
    # weights are sent as the trainer keeps them
    size = values * PrecisionType.to_dtype(own.actor.fsdp_config.model_dtype or "fp32").itemsize
    engine = own.rollout.checkpoint_engine
    given, needed = engine.update_weights_bucket_megabytes, math.ceil(size / _MIB)
    if given >= needed:
        return None
    engine.update_weights_bucket_megabytes = needed
    setting = f"{where}actor_rollout_ref.rollout.checkpoint_engine.update_weights_bucket_megabytes"
    return f"{setting} is {needed} rather than {given}, since {name} takes {size / _MIB:.1f} MiB"
