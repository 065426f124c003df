"""What several benchmarks share: the miniature world's model, and what is said of the machine."""

import platform
from pathlib import Path
from typing import Any

import psutil


def miniature_model(folder: Path) -> Path:
    """The miniature world's untrained model and its tokenizer, saved in `folder`."""
    from verl_longshort.world.tiny_model import build_model
    from verl_longshort.world.tiny_tokenizer import build_tokenizer

    tokenizer = build_tokenizer()
    build_model(tokenizer, seed=0).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def machine() -> dict[str, Any]:
    """Processor, cores, and the load averages of 1, 5 and 15 minutes."""
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    name = models[0].partition(":")[2].strip() if models else platform.machine()
    return {"cpu": name, "cores": psutil.cpu_count(), "load_average": psutil.getloadavg()}
