"""The files of a Hugging Face model folder, read without torch: is it whole, and in which dtype are its weights.

Only the headers of `.safetensors` files are read (8 bytes of length, JSON), so a model of any size takes milliseconds.
"""

import json
import struct
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from longshort_reward.errors import UserError

DTYPES: Mapping[str, str] = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
"""safetensors' names of the dtypes that models are trained and served in -> torch's."""
LORA_PREFIX = "base_model.model."
"""What peft puts before the names of a model's weights while it has adapters."""
INDEX = "model.safetensors.index.json"
ADAPTER_CONFIG = "adapter_config.json"
"""peft's own file, in every folder that holds an adapter."""
MERGE = "merge the adapter into its base (merge_and_unload of peft) and give the folder that this saves"


def weight_headers(folder: Path) -> dict[str, tuple[str, int]]:
    """Name -> (safetensors' dtype, bytes) of each weight in the folder; {} when it has no `.safetensors` file.

    Raises ValueError naming a file that is damaged.
    """
    found: dict[str, tuple[str, int]] = {}
    for file in sorted(folder.glob("*.safetensors")):
        for name, entry in _header(file).items():
            if name != "__metadata__":
                begin, end = entry["data_offsets"]
                found[name] = (entry["dtype"], end - begin)
    return found


def stored_dtype(folder: Path) -> str | None:
    """torch's name of the dtype of most bytes of the weights; None when there are none or they are quantised."""
    sizes: Counter[str] = Counter()
    for dtype, size in weight_headers(folder).values():
        sizes[dtype] += size
    return DTYPES.get(sizes.most_common(1)[0][0]) if sizes else None


def adapter_base(folder: Path) -> str | None:
    """The model that the adapter in the folder belongs to; None for a folder that holds none."""
    file = folder / ADAPTER_CONFIG
    return json.loads(file.read_text(encoding="utf-8")).get("base_model_name_or_path") if file.is_file() else None


def check_files(folder: Path, *, key: str, given: object, adapters: bool = False) -> None:
    """Raise UserError, naming `key` with the value `given`, for a folder that holds damaged weights.

    A folder with an adapter alone is refused as well, unless `adapters` are taken; then its base is checked, too.
    """
    base = adapter_base(folder)
    if base is not None and not adapters:
        raise UserError(key, given, f"is a LoRA adapter of {base}, no whole model: {MERGE}")
    if base is not None:
        _check_base(base, key, given)
    elif not (folder / "config.json").is_file():
        raise UserError(key, given, "has no config.json: give a folder that save_pretrained wrote")
    index = folder / INDEX
    if index.is_file():
        lacking = sorted({f for f in _weight_map(index, key, given).values() if not (folder / f).is_file()})
        if lacking:
            raise UserError(key, given, f"lacks {lacking[0]}, which {INDEX} names: copy the folder again")
    try:
        names = weight_headers(folder)
    except ValueError as error:
        raise UserError(key, given, f"{error}: copy the folder again") from error
    unmerged = [name for name in names if name.startswith(LORA_PREFIX)]
    if unmerged and base is None:
        raise UserError(key, given, f"holds a LoRA run's unmerged weights ({unmerged[0]}): {MERGE}")


def _check_base(base: str, key: str, given: object) -> None:
    """Raise UserError when the base of the adapter `given` cannot be used; one of the hub is not asked for."""
    folder = Path(base)
    if folder.is_dir():
        try:
            check_files(folder, key=key, given=base)
        except UserError as error:
            raise UserError(key, given, f"is an adapter whose base, {base}, cannot be used: {error.remedy}") from error
    elif base.count("/") != 1:
        raise UserError(key, given, f"is a LoRA adapter of {base}, which is not there: put it there, or {MERGE}")


def _weight_map(index: Path, key: str, given: object) -> dict[str, str]:
    try:
        return dict(json.loads(index.read_text())["weight_map"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(key, given, f"{index.name} cannot be read ({error}): copy the folder again") from error


def _header(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as content:
            (length,) = struct.unpack("<Q", content.read(8))
            size = file.stat().st_size
            if length > size:
                raise ValueError("header")
            header = json.loads(content.read(length))
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    except (struct.error, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file.name} is damaged") from error
    if ends and 8 + length + max(ends) > size:
        raise ValueError(f"{file.name} is cut off")
    return dict(header)
