"""A model's weights by name: replace them, check that all were replaced, and fingerprint them."""

import hashlib
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn


def load_weights(model: nn.Module, named: Iterable[tuple[str, Tensor]]) -> list[str]:
    """Copy tensors into the model's weights of the same names, converting dtype and device; the names.

    Raises KeyError for a name that the model does not have and ValueError for another shape. Tensors before
    the bad one are in place by then.
    """
    weights = model.state_dict()
    loaded = []
    with torch.no_grad():
        for name, tensor in named:
            if name not in weights:
                raise KeyError(f"weight {name} is not in the model; it has {', '.join(list(weights)[:3])}, …")
            if weights[name].shape != tensor.shape:
                shapes = f"{tuple(tensor.shape)}; the model's is {tuple(weights[name].shape)}"
                raise ValueError(f"weight {name} has shape {shapes}")
            weights[name].copy_(tensor)
            loaded.append(name)
    return loaded


def missing_weights(model: nn.Module, loaded: Iterable[str]) -> list[str]:
    """Names of the weights not loaded, neither under their own name nor under that of a tied one."""
    weights = model.state_dict()
    written = {_storage(weights[name]) for name in loaded}
    return [name for name, tensor in weights.items() if _storage(tensor) not in written]


def _storage(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.device, tensor.data_ptr(), tensor.numel()


def checksum(model: nn.Module) -> str:
    """SHA-256 over all weights' bytes, in the order of their names, as hexadecimal digits."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
