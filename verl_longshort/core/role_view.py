"""One trajectory as one role sees it: a prompt, then every turn of both roles as token ids.

The prompt is the role's chat template over its system prompt and the problem. Behind it come the turns, with
no chat markers between them. The role's own turns are the very tokens its engine generated (mask 1), the
partner's turns are text tokenised once, alone, by this role's tokenizer (mask 0). So nothing a model wrote is
tokenised again, the prompt of each later turn extends the one before (an engine's prefix cache holds), one
row of training data holds the whole trajectory, and the two models may have different tokenizers.

A partner's turn decodes to what was given as far as the tokenizer keeps text apart: a normaliser (NFC, lower
case) or a decoder that puts spaces between words shows in it. Of a partner's turn that does not fit, the view holds
what does: nothing of its own comes behind it, so nothing is learned or generated from a part.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from longshort_reward.errors import UserError
from longshort_reward.protocol import TAGS, Role, RolePrompts

Message = Mapping[str, str]
"""`{"role": "user" | "assistant", "content": str}`: one of a conversation before the problem."""


class Tokenizer(Protocol):
    """What a view needs of a Hugging Face tokenizer."""

    def apply_chat_template(self, conversation: list[dict[str, str]], **kwargs: Any) -> Any: ...

    def encode(self, text: str, *, add_special_tokens: bool = ...) -> list[int]: ...

    def decode(self, token_ids: list[int], *, skip_special_tokens: bool = ..., **kwargs: Any) -> str: ...


def decode_turn(tokenizer: Tokenizer, token_ids: Sequence[int]) -> str:
    """The text of generated tokens without special ones (EOS); spaces are left as the model wrote them."""
    return tokenizer.decode(list(token_ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)


def render_prompt(tokenizer: Tokenizer, system: str, problem: str, history: Sequence[Message] = ()) -> list[int]:
    """Token ids of the chat of system message (none if empty), history and problem, open for the assistant's text."""
    messages = _messages(system, problem, history)
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=False)
    if not isinstance(ids, list) or not all(isinstance(token, int) for token in ids):
        raise TypeError(
            f"apply_chat_template gave {type(ids).__name__} instead of a list of token ids; "
            "use a tokenizer that honours return_dict=False"
        )
    return ids


def _messages(system: str, problem: str, history: Sequence[Message] = ()) -> list[dict[str, str]]:
    chat = [*map(dict, history), {"role": "user", "content": problem}]
    return [{"role": "system", "content": system}, *chat] if system else chat


def check_tokenizer(tokenizer: Tokenizer) -> None:
    """Raise UserError when a role cannot speak the protocol with this tokenizer and its chat template."""
    name = getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__
    for tag in TAGS:
        shown = decode_turn(tokenizer, tokenizer.encode(tag, add_special_tokens=False)).strip()
        if shown != tag:
            remedy = f"it turns the tag {tag} into {shown!r}; add the tags as tokens with special=False"
            raise UserError("tokenizer", name, remedy)
    prompt = tokenizer.apply_chat_template(_messages("", ""), add_generation_prompt=True, tokenize=False)
    written = [tag for tag in TAGS if tag in prompt]
    if written:
        remedy = f"its chat template writes {', '.join(written)}; use one that leaves the tags to the model"
        raise UserError("tokenizer", name, remedy)


class RoleView:
    """Token ids, mask and log-probs of one trajectory for one role. Grows at the end only.

    `limit` is the most tokens of the response, None for any number; set it before the first turn. `prompt_ids` are
    those of `render_prompt`, where the caller has them already.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        role: Role,
        prompts: RolePrompts,
        problem: str,
        history: Sequence[Message] = (),
        *,
        prompt_ids: list[int] | None = None,
    ) -> None:
        self.role = role
        self.limit: int | None = None
        self._tokenizer = tokenizer
        if prompt_ids is None:
            prompt_ids = render_prompt(tokenizer, prompts.for_role(role), problem, history)
        self._prompt_ids = prompt_ids
        self._ids: list[int] = []
        self._mask: list[int] = []
        self._logprobs: list[float] = []
        self._own: list[slice] = []
        self._has_logprobs: bool | None = None

    @property
    def prompt_ids(self) -> list[int]:
        """Token ids of the prompt, before the first turn."""
        return list(self._prompt_ids)

    @property
    def response_ids(self) -> list[int]:
        """Token ids of all turns so far, own and partner's, in order."""
        return list(self._ids)

    @property
    def response_mask(self) -> list[int]:
        """1 for a token this role generated, 0 for the partner's; as long as `response_ids`."""
        return list(self._mask)

    @property
    def response_logprobs(self) -> list[float] | None:
        """Natural log-probs of own tokens, 0.0 for the partner's tokens; None if the engine gave none."""
        return None if self._has_logprobs is False else list(self._logprobs)

    @property
    def context_ids(self) -> list[int]:
        """Prompt and response: what the engine continues."""
        return self._prompt_ids + self._ids

    @property
    def room(self) -> int | None:
        """How many tokens can be added; None: any number."""
        return None if self.limit is None else max(0, self.limit - len(self._ids))

    @property
    def own_turns(self) -> list[list[int]]:
        """Token ids of each own turn, as generated."""
        return [self._ids[span] for span in self._own]

    def add_own(self, token_ids: Sequence[int], logprobs: Sequence[float] | None) -> None:
        """Append a turn as this role's engine generated it, with one log-prob per token or none at all.

        Raises ValueError when the numbers differ, when some turns have log-probs and others have not, or when the turn
        does not fit.
        """
        if self.room is not None and len(token_ids) > self.room:
            raise ValueError(f"{self.role}: {len(token_ids)} tokens where {self.room} fit; give the engine that limit")
        if logprobs is not None and len(logprobs) != len(token_ids):
            raise ValueError(f"{self.role}: {len(logprobs)} log-probs for {len(token_ids)} tokens; need one each")
        if self._has_logprobs not in (None, logprobs is not None):
            raise ValueError(f"{self.role}: log-probs given for some turns only; ask the engine for all or none")
        self._has_logprobs = logprobs is not None
        self._own.append(slice(len(self._ids), len(self._ids) + len(token_ids)))
        self._append(token_ids, 1, logprobs if logprobs is not None else [0.0] * len(token_ids))

    def add_partner(self, text: str) -> None:
        """Append a turn of the partner, tokenised alone by this role's tokenizer, as far as there is room."""
        token_ids = self._tokenizer.encode(text, add_special_tokens=False)[: self.room]
        self._append(token_ids, 0, [0.0] * len(token_ids))

    def _append(self, token_ids: Sequence[int], mask: int, logprobs: Sequence[float]) -> None:
        self._ids.extend(token_ids)
        self._mask.extend([mask] * len(token_ids))
        self._logprobs.extend(logprobs)
