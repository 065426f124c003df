"""Why a reply ended, in the words of many servers.

Only what says that it was cut is a cut. A server that gives no reason is taken to have cut a reply of as many tokens as
were allowed.
"""

from collections.abc import Mapping
from typing import Any

STOP, LENGTH, ABORTED, FILTERED = "stop", "length", "aborted", "content_filter"
END_OF_TEXT = frozenset({"eos", "eos_token", "eos_found", "end", "end_of_text", "end_of_sequence", "end_turn"})
"""The model ended by itself, not at a stop string."""
STOP_STRING = frozenset({"stop_sequence", "stop_string", "stop_str", "stop_word"})
"""The model was stopped at a stop string."""
_STOPS = END_OF_TEXT | {
    *("", "stop", "stopped", "stop_token", "stop_token_id", *STOP_STRING),
    *("complete", "completed", "done", "finish", "finished", "success", "none", "null"),
}
_WORDS = {
    **dict.fromkeys(_STOPS, STOP),
    **dict.fromkeys(("length", "max_tokens", "max_length", "max_new_tokens", "max_output_tokens"), LENGTH),
    **dict.fromkeys(("token_limit", "model_length", "context_length", "truncated", "incomplete"), LENGTH),
    **dict.fromkeys(("context_window_exceeded", "model_context_window_exceeded"), LENGTH),
    **dict.fromkeys(("abort", "aborted", "cancel", "cancelled", "canceled", "error", "timeout"), ABORTED),
    **dict.fromkeys(("content_filter", "safety", "recitation", "blocked", "refusal"), FILTERED),
    **dict.fromkeys(("prohibited_content", "spii", "blocklist", "sensitive"), FILTERED),
}


def plain_word(given: Any) -> str:
    """A reason in lower case and without its family's name: `FINISH_REASON_STOP` is `stop`; "" where there is none."""
    word = given.get("type") if isinstance(given, Mapping) else given
    text = "" if word is None else str(word).strip().lower().replace("-", "_").replace(" ", "_")
    for prefix in ("finish_reason_", "finishreason.", "finish_reason."):
        text = text.removeprefix(prefix)
    return text


def finish_reason(given: Any, *, tokens: Any, max_tokens: int) -> str:
    """`stop`, `length`, `aborted`, `content_filter`, or the server's own word, in lower case, for anything else.

    Args:
        given: what the server says.
        tokens: generated tokens as the server counted them, if it did.
        max_tokens: how many were allowed.
    """
    word = plain_word(given)
    if not word and isinstance(tokens, int) and tokens >= max_tokens:
        return LENGTH
    return _WORDS.get(word, word)
