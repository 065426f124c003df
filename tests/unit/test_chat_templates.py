"""Chat templates of several kinds: with a system message of their own, without one, without a padding token."""

from typing import Any

import pytest
from helpers.tiny_tokenizers import CHAT_ML, PLAIN, byte_level
from longshort_reward.errors import UserError
from transformers import PreTrainedTokenizerFast

from verl_longshort.core.role_view import render_prompt
from verl_longshort.engines.tokenizers import check_chat, own_system_message, said_of_system

OWN = "You are a helpful assistant."
QWEN = "{% if messages[0].role != 'system' %}{{ '<|im_start|>system\\n" + OWN + "<|im_end|>\\n' }}{% endif %}" + CHAT_ML
REFUSING = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + CHAT_ML
DATED = CHAT_ML.replace("{% for", "{{ 'Today: 1 May\\n' }}{% for", 1)
FOLDED = (
    "{% if messages[0].role == 'system' %}{% set system = messages[0].content + '\\n' %}{% else %}"
    "{% set system = '' %}{% endif %}<user>{{ system }}{{ messages[-1].content }}</user>"
)


def with_template(template: str, **changes: Any) -> Any:
    return PreTrainedTokenizerFast(
        tokenizer_object=byte_level().backend_tokenizer, eos_token="<|im_end|>", chat_template=template, **changes
    )


def check(tokenizer: Any, system: str = "") -> None:
    key = "longshort.environment.prompts.long"
    check_chat(tokenizer, "/nowhere", key="longshort.models.long", system=system, prompt_key=key)


@pytest.mark.parametrize(
    ("template", "own"), [(QWEN, OWN), (CHAT_ML, ""), (PLAIN, ""), (REFUSING, ""), (DATED, ""), (FOLDED, "")]
)
def test_a_system_message_of_its_own_is_found(template: str, own: str) -> None:
    tokenizer = with_template(template, bos_token="<|im_start|>")
    assert own_system_message(tokenizer) == own
    # without a padding token
    check(tokenizer)
    assert (OWN in tokenizer.decode(render_prompt(tokenizer, "", "2 + 3 ?"))) == bool(own)
    said = said_of_system(tokenizer, "/nowhere", system="", prompt_key="longshort.system_prompt")
    assert (said is not None) == bool(own)
    assert said is None or (OWN in said and said.startswith("longshort.system_prompt is empty"))
    assert said_of_system(tokenizer, "/nowhere", system="think", prompt_key="x") is None


def test_a_template_without_a_system_role() -> None:
    check(with_template(FOLDED), system="think first")
    with pytest.raises(UserError, match=r"refuses a system message \(no system role\): set longshort.environment"):
        check(with_template(REFUSING), system="think first")
    check(with_template(REFUSING))
