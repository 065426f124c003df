"""Tokenizers of models: loading one, and what it must be able to do before a model is trained or asked with it.

Every problem is a `UserError` that names the model's key. Imports transformers when it is called, and no weights.
"""

import json
from pathlib import Path
from typing import Any

from longshort_reward.errors import UserError
from longshort_reward.protocol import TAGS

from verl_longshort.core.role_view import check_tokenizer, render_prompt

# words that the vocabulary of the miniature world has, too
_SAMPLE = "2 + 3 ?"


def load_tokenizer(
    path: str, *, key: str, trust_remote_code: bool = False, chat_template: str | None = None, files_key: str = ""
) -> Any:
    """The tokenizer in the folder `path`, or of that name on the hub.

    Args:
        key: setting that names the model, for errors.
        chat_template: takes the place of the tokenizer's own.
        files_key: setting that permits code of the model's own; named where the tokenizer needs it.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(Path(path).expanduser()), trust_remote_code=trust_remote_code)
    # a damaged tokenizer.json is a plain Exception of the tokenizers library, and code of the model's own raises any
    except Exception as error:
        reason = " ".join(str(error).split())
        if "trust_remote_code" in reason and not trust_remote_code:
            remedy = f"its tokenizer is code of the model's own: set {files_key or 'trust_remote_code'}=true to run it"
        else:
            remedy = f"its tokenizer cannot be loaded ({reason[:200]}): save it beside the model (save_pretrained)"
        raise UserError(key, path, remedy) from error
    if chat_template is not None:
        tokenizer.chat_template = chat_template
    return tokenizer


def check_chat(
    tokenizer: Any,
    path: str,
    *,
    key: str,
    system: str,
    prompt_key: str,
    template_key: str = "",
    protocol: bool = True,
) -> None:
    """Check that prompts can be made with a tokenizer, and that turns can end.

    Args:
        path: of the model, whose vocabulary must hold what the tokenizer writes; a name on the hub is not looked at.
        key: setting that names the model, for errors.
        system: the system message; empty: none.
        prompt_key: setting of the system message.
        template_key: setting that gives another chat template.
        protocol: the model plays a role of a pair, and its tokenizer must keep the protocol's tags apart.

    Raises:
        UserError: it has no chat template or one that leaves something out, no end token, ids that the model does not
            have, or it cannot write the protocol.
    """
    other = f" (or {template_key})" if template_key else ""
    if not getattr(tokenizer, "chat_template", None):
        remedy = f"its tokenizer has no chat template: add chat_template.jinja to its folder{other}"
        raise UserError(key, path, remedy)
    if tokenizer.eos_token_id is None:
        remedy = "its tokenizer has no end token: set eos_token in tokenizer_config.json to what ends the model's turns"
        raise UserError(key, path, remedy)
    ids = _rendered(tokenizer, path, key=key, system=system, prompt_key=prompt_key, other=other)
    tags: list[int] = []
    if protocol:
        check_tokenizer(tokenizer)
        tags = [token for tag in TAGS for token in tokenizer.encode(tag, add_special_tokens=False)]
    known = _vocabulary(path)
    if known is None:
        return
    written = {"its end token": [tokenizer.eos_token_id], "its padding token": [tokenizer.pad_token_id or 0]}
    for what, tokens in {**written, "in prompts": [*ids, *tags]}.items():
        if (largest := max(tokens)) >= known:
            remedy = (
                f"its tokenizer writes {tokenizer.convert_ids_to_tokens(largest)!r} ({what}) as id {largest}, and the "
                f"model has the ids up to {known - 1}: resize its embeddings, or take the tokenizer that belongs to it"
            )
            raise UserError(key, path, remedy)


def other_ends(tokenizer: Any, path: str) -> list[int]:
    """The tokens by which the model in the folder `path` says that it ends, when the tokenizer's is none of them."""
    for name in ("generation_config.json", "config.json"):
        named = _json(Path(path).expanduser() / name).get("eos_token_id")
        if named is not None:
            ends = named if isinstance(named, list) else [named]
            return [] if tokenizer.eos_token_id in ends else ends
    return []


def own_system_message(tokenizer: Any) -> str:
    """The system message that a chat template writes where a chat has none; empty: it writes none."""
    sample, mark = sample_text(tokenizer), "<0>"
    user = {"role": "user", "content": sample}
    try:
        given, alone = (
            tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
            for chat in ([{"role": "system", "content": mark}, user], [user])
        )
    # jinja's errors: of a template that refuses a system message, which then has none of its own
    except Exception:
        return ""
    before, _, after = given.partition(mark)
    behind, shown = after.partition(sample)[0], alone.partition(sample)[0]
    if len(shown) <= len(before) + len(behind) or not (shown.startswith(before) and shown.endswith(behind)):
        return ""
    return str(shown[len(before) : len(shown) - len(behind)]).strip()


def said_of_system(tokenizer: Any, path: str, *, system: str, prompt_key: str) -> str | None:
    """What a user should know where `system` is empty and a system message is sent all the same; None: nothing."""
    if system or not (own := own_system_message(tokenizer)):
        return None
    return (
        f"{prompt_key} is empty, and the chat template of {path} then writes a system message of its own, which is "
        f"sent: {own[:120]!r}"
    )


def _rendered(tokenizer: Any, path: str, *, key: str, system: str, prompt_key: str, other: str) -> list[int]:
    """Token ids of a sample prompt."""
    silent = f"set {prompt_key}='' for no system message, or take another chat template{other}"
    sample = sample_text(tokenizer)
    try:
        ids = render_prompt(tokenizer, system, sample)
    # jinja's errors, and plain ones of the tokenizers library
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        try:
            render_prompt(tokenizer, "", sample)
        except Exception:
            remedy = f"its chat template cannot write a prompt ({reason}): take another one{other}"
            raise UserError(key, path, remedy) from error
        remedy = f"its chat template refuses a system message ({reason}): {silent}"
        raise UserError(key, path, remedy) from error
    shown = tokenizer.apply_chat_template(
        [*([{"role": "system", "content": system}] if system else []), {"role": "user", "content": sample}],
        add_generation_prompt=True,
        tokenize=False,
    )
    if system and system.strip()[:40] not in shown:
        raise UserError(key, path, f"its chat template leaves the system message out: {silent}")
    if sample not in shown:
        raise UserError(key, path, f"its chat template leaves the problem out: take another one{other}")
    return ids


def sample_text(tokenizer: Any) -> str:
    """A problem that the tokenizer can spell: one of whole words, without an unknown token, knows only its own."""
    try:
        tokenizer.encode(_SAMPLE, add_special_tokens=False)
    except Exception:
        special = {*tokenizer.all_special_tokens, *TAGS}
        return next(word for word in sorted(tokenizer.get_vocab()) if word not in special)
    return _SAMPLE


def _vocabulary(path: str) -> int | None:
    config = _json(Path(path).expanduser() / "config.json")
    size = config.get("vocab_size", (config.get("text_config") or {}).get("vocab_size"))
    return size if isinstance(size, int) else None


def _json(file: Path) -> dict[str, Any]:
    content = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return content if isinstance(content, dict) else {}


def check_generation_config(path: str, *, key: str) -> None:
    """Check that the sampling settings which come with a model can be saved beside the trained one.

    transformers loads settings that it refuses to save, such as `top_p` without `do_sample`, and saving is the last
    thing that training does. Raises UserError naming `key` and the file.
    """
    from transformers import GenerationConfig
    from transformers.utils import logging

    folder = str(Path(path).expanduser())
    file = Path(folder) / "generation_config.json"
    if Path(folder).is_dir() and not file.is_file():
        return
    verbosity = logging.get_verbosity()
    # it warns of what is refused here
    logging.set_verbosity_error()
    try:
        settings = GenerationConfig.from_pretrained(folder)
        settings.validate(strict=True)
    except OSError as error:
        # a model of the hub need not have one
        if file.is_file():
            raise UserError(key, path, f"its {file.name} is damaged: correct it, or remove it") from error
    except (TypeError, ValueError) as error:
        reason = " ".join(line.strip("- ") for line in str(error).splitlines()[1:] if line.startswith("- ")) or str(
            error
        )
        remedy = f"transformers refuses to save its {file.name} after training ({reason}): correct it in {folder}"
        raise UserError(key, path, remedy) from error
    finally:
        logging.set_verbosity(verbosity)
