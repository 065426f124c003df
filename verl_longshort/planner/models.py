"""Where a recipe's models are, what shape they have, and whether they can be had.

A model is a folder that an earlier stage writes, a folder on the disk, or a name on the Hugging Face Hub. The
Hub is asked for the model's config.json, once per model; a Hub that cannot be reached is no mistake of the
recipe, so then nothing is said about the access, and shapes come from the table in `shapes`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longshort_reward.errors import UserError

from verl_longshort.base.requirements import Product
from verl_longshort.planner.shapes import KNOWN, ModelShape

_ETAG_TIMEOUT_S = 10
_REACH_TIMEOUT_S = 5
_BF16 = 2


@dataclass(frozen=True, kw_only=True)
class Found:
    """What is known about a model."""

    name: str
    where: str
    """For people."""
    shape: ModelShape | None = None
    problem: str = ""
    """Why it cannot be had."""
    download: float = 0.0
    """Bytes still to be fetched."""
    made: bool = False
    """A stage of the recipe writes it."""


class Models:
    """Looks models up, each once.

    Args:
        products: what the recipe's stages write.
        offline: the recipe forbids to ask the Hub (HF_HUB_OFFLINE).
    """

    def __init__(self, products: Mapping[str, Product], *, offline: bool) -> None:
        self._products = products
        self._offline = offline
        self._reachable = True
        self._found: dict[str, Found] = {}

    def find(self, name: str) -> Found:
        """The model in the folder `name`, or of that name."""
        if name not in self._found:
            try:
                self._found[name] = self._find(name)
            except UserError as error:
                self._found[name] = Found(name=name, where="", problem=error.remedy)
        return self._found[name]

    @property
    def found(self) -> list[Found]:
        """All models asked for so far."""
        return list(self._found.values())

    def _find(self, name: str) -> Found:
        product = self._products.get(name)
        if product is not None and product.config is not None:
            shape = ModelShape.from_config(product.config, name)
            return Found(name=name, where="made by a stage", shape=shape, made=True)
        if product is not None and product.model is not None:
            shape_before = self.find(product.model).shape
            return Found(name=name, where="trained by a stage", shape=shape_before, made=True)
        if product is not None:
            return Found(name=name, where="written by a stage, which does not say what it is", made=True)
        if Path(name).is_dir():
            return Found(name=name, where="folder", shape=_read(Path(name) / "config.json", name))
        if Path(name).is_absolute():
            # The command that asked for it, or the stage that should have made it, has said so.
            return Found(name=name, where="no such folder")
        return self._on_hub(name)

    def _on_hub(self, name: str) -> Found:
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(name, "config.json")
        if isinstance(cached, str) and any(Path(cached).parent.glob("*.safetensors")):
            return Found(name=name, where="in the Hub's cache", shape=_read(Path(cached), name))
        if self._offline:
            remedy = "is not in the Hub's cache, and the recipe sets HF_HUB_OFFLINE: fetch it before"
            return Found(name=name, where="", shape=KNOWN.get(name), problem=remedy)
        if not self._reachable:
            return _unchecked(name)
        return self._ask(name)

    def _ask(self, name: str) -> Found:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

        self._reachable = _reachable()
        if not self._reachable:
            return _unchecked(name)
        try:
            shape = _read(Path(hf_hub_download(name, "config.json", etag_timeout=_ETAG_TIMEOUT_S)), name)
        except GatedRepoError:
            remedy = "is gated: accept its licence on the Hub and set HF_TOKEN to a token that may read it"
            return Found(name=name, where="", shape=KNOWN.get(name), problem=remedy)
        except RepositoryNotFoundError:
            remedy = "the Hub has no such model, or it is private: check the name, or set HF_TOKEN"
            return Found(name=name, where="", problem=remedy)
        except OSError:
            # the connection was lost, or the Hub is ill
            self._reachable = False
            return _unchecked(name)
        return Found(name=name, where="on the Hub", shape=shape, download=shape.parameters * _BF16)


def _reachable() -> bool:
    """Asked once and briefly: huggingface_hub itself tries for half a minute."""
    import httpx
    from huggingface_hub.constants import ENDPOINT

    try:
        httpx.head(ENDPOINT, timeout=_REACH_TIMEOUT_S)
    except httpx.HTTPError:
        return False
    return True


def _unchecked(name: str) -> Found:
    shape = KNOWN.get(name)
    download = shape.parameters * _BF16 if shape else 0.0
    return Found(name=name, where="not checked: the Hub cannot be reached", shape=shape, download=download)


def _read(file: Path, name: str) -> ModelShape:
    config: Any = json.loads(file.read_text(encoding="utf-8"))
    return ModelShape.from_config(config, name)
