"""A model's weights by name: replace them, check that all were replaced, fingerprint them, send them."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
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


@dataclass(frozen=True, kw_only=True)
class PackedTensor:
    """A named tensor as raw bytes in numpy, which travels through Ray's shared memory without a copy."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    data: "np.ndarray[Any, np.dtype[np.uint8]]"

    @classmethod
    def of(cls, name: str, tensor: Tensor) -> "PackedTensor":
        """Pack; the bytes are the tensor's own where it is contiguous and on the CPU."""
        flat = tensor.detach().cpu().contiguous().flatten()
        data = flat.view(torch.uint8).numpy()
        return cls(name=name, dtype=tensor.dtype, shape=tuple(tensor.shape), data=data)

    def tensor(self) -> Tensor:
        """Unpack. Copies, since what comes out of shared memory must not be written to."""
        return torch.from_numpy(self.data.copy()).view(self.dtype).view(self.shape)
