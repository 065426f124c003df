"""Buckets of weights hold the largest one."""

from pathlib import Path
from typing import Any

import pytest
from helpers.harness import write_model
from longshort_reward.errors import UserError
from omegaconf import DictConfig, OmegaConf
from transformers import AutoConfig, AutoModelForCausalLM

from verl_longshort.engines.loading import largest_weight
from verl_longshort.verl_plugin.checks.buckets import size_bucket

KEY = "actor_rollout_ref.rollout.checkpoint_engine.update_weights_bucket_megabytes"
EMBEDDING = 49152 * 576


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("small"))


@pytest.fixture
def smollm(tmp_path: Path) -> Path:
    """The configuration of SmolLM2-135M, whose embedding has 108 MiB in float32."""
    layers = {"num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3, "intermediate_size": 1536}
    config = AutoConfig.for_model("llama", vocab_size=49152, hidden_size=576, tie_word_embeddings=True, **layers)
    config.save_pretrained(tmp_path)
    return tmp_path


def policy(model: Path, *, bucket: int = 64, dtype: str | None = "fp32", name: str = "vllm") -> DictConfig:
    own: dict[str, Any] = {
        "model": {"path": str(model), "trust_remote_code": False},
        "actor": {"fsdp_config": {"model_dtype": dtype}},
        "rollout": {"name": name, "checkpoint_engine": {"update_weights_bucket_megabytes": bucket}},
    }
    return OmegaConf.create({"actor_rollout_ref": own})


def test_the_largest_weight_is_found_without_weights(smollm: Path) -> None:
    assert largest_weight(str(smollm)) == ("model.embed_tokens.weight", EMBEDDING)


def test_it_is_that_of_the_model(small: Path) -> None:
    weights = AutoModelForCausalLM.from_pretrained(small).state_dict()
    name, values = largest_weight(str(small))
    assert values == weights[name].numel() == max(weight.numel() for weight in weights.values())


@pytest.mark.parametrize(
    ("dtype", "given", "sized"), [("fp32", 64, 108), (None, 64, 108), ("bf16", 32, 54), ("fp32", 108, 108)]
)
def test_a_bucket_holds_it(smollm: Path, dtype: str | None, given: int, sized: int) -> None:
    assert EMBEDDING * 4 == 108 * 2**20
    config = policy(smollm, bucket=given, dtype=dtype)
    note = size_bucket(config, where="longshort.policies.long.")
    assert OmegaConf.select(config, KEY) == sized
    if given == sized:
        assert note is None
    else:
        size = "54.0" if dtype == "bf16" else "108.0"
        told = f"longshort.policies.long.{KEY} is {sized} rather than {given}"
        assert note == f"{told}, since model.embed_tokens.weight takes {size} MiB"


def test_engines_without_such_a_buffer_keep_theirs(smollm: Path) -> None:
    config = policy(smollm, name="transformers")
    assert size_bucket(config) is None
    assert OmegaConf.select(config, KEY) == 64


def test_a_configuration_of_nothing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="its configuration cannot be read"):
        size_bucket(policy(tmp_path))
