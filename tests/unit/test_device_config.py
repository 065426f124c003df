"""The overlay for a CPU, composed on verl's own config."""

from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from verl_longshort.config.compose import CONFIG_DIR, verl_config_dir

ADDED = {
    "actor_rollout_ref.model.override_config.attn_implementation",
    "critic.model.override_config.attn_implementation",
    *(
        f"{owner}.mixed_precision.{kind}_dtype"
        for owner in (
            "actor_rollout_ref.actor.fsdp_config",
            "actor_rollout_ref.ref.fsdp_config",
            "critic.fsdp",
        )
        for kind in ("param", "reduce", "buffer")
    ),
    "actor_rollout_ref.rollout.engine_kwargs.vllm.kv_cache_memory_bytes",
    "ray_kwargs.ray_init.num_gpus",
    "ray_kwargs.ray_init.include_dashboard",
}
"""Keys that verl's YAML does not have: fields of its dataclasses, or free dicts."""


def composed(*overrides: str) -> DictConfig:
    search = f"hydra.searchpath=[file://{CONFIG_DIR}]"
    with initialize_config_dir(str(verl_config_dir()), version_base=None):
        return compose("ppo_trainer", overrides=[search, *overrides])


def leaves(file: Path) -> dict[str, object]:
    found: dict[str, object] = {}

    def walk(node: object, path: str) -> None:
        if isinstance(node, dict):
            for key, value in node.items():
                walk(value, f"{path}.{key}" if path else str(key))
        else:
            found[path] = node

    walk(OmegaConf.to_container(OmegaConf.load(file)), "")
    return found


OVERLAY = leaves(CONFIG_DIR / "device" / "cpu.yaml")


def has(config: DictConfig, key: str) -> bool:
    parent, _, leaf = key.rpartition(".")
    node = OmegaConf.select(config, parent)
    return isinstance(node, DictConfig) and leaf in list(node.keys())


def test_every_key_is_verls_or_known_to_be_added() -> None:
    base = composed()
    assert {key for key in OVERLAY if not has(base, key)} == ADDED


def test_overlay_wins_over_verls_defaults() -> None:
    config = composed("+device=cpu")
    expected = {**OVERLAY, "ray_kwargs.ray_init.num_gpus": 1}
    assert {key: OmegaConf.select(config, key) for key in OVERLAY} == expected


def test_logical_slots_follow_the_world_size() -> None:
    config = composed("+device=cpu", "trainer.n_gpus_per_node=2")
    assert config.ray_kwargs.ray_init.num_gpus == 2
    assert config.actor_rollout_ref.ref.strategy == "fsdp2"
