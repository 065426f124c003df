"""Small real tokenizers, built in memory: three vocabularies that cut the same text differently."""

from functools import lru_cache

from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, trainers
from tokenizers.models import BPE, WordLevel
from transformers import PreTrainedTokenizerFast

LINES = (
    "<think>We need 12 < 15, so x^2 + y^2 > 3 and the sum is 27.</think>",
    "<answer>Hence the answer is \\boxed{27}.</answer>",
    "<answer>The next step is hard: how many primes are below 100?</rethink>",
    "système naïve Ω → ∞ ≤ ≥",
)
WORDS = (
    *("<think>", "</think>", "<answer>", "</answer>", "</rethink>"),
    *(str(digit) for digit in range(10)),
    *("+", "-", "=", "<", ">", "a", "b", "x", "so", "is", "hard", "\\boxed{", "}"),
)
CHAT_ML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
PLAIN = "{{ bos_token }}{% for message in messages %}{{ ' ' + message['content'] }}{% endfor %}"


def _train(size: int, tokenizer: Tokenizer, special: list[str]) -> Tokenizer:
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=special,
        show_progress=False,
    )
    tokenizer.train_from_iterator(LINES, trainer)
    return tokenizer


@lru_cache(maxsize=1)
def byte_level() -> PreTrainedTokenizerFast:
    """Byte-level BPE in Qwen's manner: keeps every text exactly; EOS is `<|im_end|>`."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    _train(320, tokenizer, ["<|im_start|>", "<|im_end|>"])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>"],
        chat_template=CHAT_ML,
    )


@lru_cache(maxsize=1)
def normalising() -> PreTrainedTokenizerFast:
    """Byte-level BPE with another vocabulary, splitting digits and normalising to NFC; EOS is `</s>`."""
    tokenizer = Tokenizer(BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    _train(270, tokenizer, ["<s>", "</s>"])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", chat_template=PLAIN)


@lru_cache(maxsize=1)
def word_level() -> PreTrainedTokenizerFast:
    """One id per word of `WORDS`, anything else is `<unk>`; decoding joins with spaces; EOS is `<eos>`."""
    words = ("<unk>", "<eos>", "<bos>", *WORDS)
    tokenizer = Tokenizer(WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        bos_token="<bos>",
        eos_token="<eos>",
        chat_template=PLAIN,
    )
