"""The word-level tokenizer of the miniature world, as an ordinary Hugging Face fast tokenizer.

Words are separated by spaces and decoding joins them with spaces again. The protocol tags are ordinary words,
as they are plain text for a real model; only `<pad>`, `<eos>` and `<bos>` are special.
"""

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerFast

SPECIAL_WORDS = ("<pad>", "<eos>", "<bos>")
_TAGS = ("<think>", "</think>", "<answer>", "</answer>", "</rethink>")
_DIGITS = tuple("0123456789")
_SYMBOLS = ("\\boxed{", "}", "(", ")", ";", "?", ".", ",", "=", ":", "+")
_WORDS = (
    *("a", "b", "c", "d", "start", "step", "list"),
    *("okay", "so", "we", "let", "us", "see", "at", "and", "follow", "the", "steps", "to", "in", "order"),
    *("is", "go", "slowly", "wait", "hmm", "check", "again", "yes", "over", "answer"),
)
VOCABULARY = (*SPECIAL_WORDS, *_TAGS, *_DIGITS, *_SYMBOLS, *_WORDS)

CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{% if message['content'] %}{{ ' ' + message['content'] }}{% endif %}"
    "{% if message['role'] == 'assistant' %}{{ ' ' + eos_token }}{% endif %}"
    "{% endfor %}"
)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer; `save_pretrained` writes it with its chat template.

    A word outside the vocabulary raises when it is encoded: the world has none, so it is a mistake.
    """
    words = Tokenizer(WordLevel({word: index for index, word in enumerate(VOCABULARY)}))
    words.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token="<pad>",
        eos_token="<eos>",
        bos_token="<bos>",
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )
