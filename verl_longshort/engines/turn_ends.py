"""Lets plain transformers end a turn of a role where it ends, by a model's `generation_config.json`."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from longshort_reward.protocol import STOP_STRINGS
from transformers import AutoConfig, AutoTokenizer, GenerationConfig
from transformers.generation.stopping_criteria import StopStringCriteria

from verl_longshort.base.files import write_json
from verl_longshort.core.policies import roles_of
from verl_longshort.engines.stopping import end_tokens

FILE = "generation_config.json"


def stop_at_turns(folder: Path, role: str, *, trust_remote_code: bool) -> None:
    """Write the closing tags of a role (long, short or both) into the generation config of the model in `folder`.

    They are not made ends of sequence (`eos_token_id`), although some are one token: a policy that is asked alone, as a
    single model, writes on after its first thought. Only where transformers cannot take stop strings, as it needs a
    tokenizer that spells any word, tags of one token are; this package's engines leave them out (`end_tokens`).
    """
    file = folder / FILE
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
    if file.is_file():
        known = json.loads(file.read_text())
    else:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
        known = GenerationConfig.from_model_config(config).to_diff_dict()
    # with this mark transformers would make the config anew from the model's
    known.pop("_from_model_config", None)
    tags = [tag for one in roles_of(role) for tag in STOP_STRINGS[one]]
    spelt = [tokenizer.encode(tag, add_special_tokens=False) for tag in tags]
    if all(len(ids) == 1 for ids in spelt) and not _takes_stop_strings(tokenizer, tags):
        ends = end_tokens(tokenizer, known.get("eos_token_id"), tokenizer.eos_token_id)
        write_json(file, {**known, "eos_token_id": [*ends, *(ids[0] for ids in spelt)]})
    else:
        write_json(file, {**known, "stop_strings": tags})


def _takes_stop_strings(tokenizer: Any, strings: Sequence[str]) -> bool:
    try:
        StopStringCriteria(tokenizer, list(strings))
    # a tokenizer of whole words raises what its library does
    except Exception:
        return False
    return True
