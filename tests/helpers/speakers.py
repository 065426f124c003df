"""Tiny models that speak the protocol, right now and then: two of different sizes and tokenizers, one for both roles.

Trained for some seconds on one-step sums, so that most trajectories are well formed and groups disagree,
which is what a learning step needs.
"""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from longshort_reward.protocol import ROLES, Role, RolePrompts
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from helpers.harness import sums
from verl_longshort.core.role_view import RoleView
from verl_longshort.world.tiny_tokenizer import CHAT_TEMPLATE, VOCABULARY, build_tokenizer

NO_PROMPTS = RolePrompts(long="", short="")
STEPS = 120
BATCH = 48


def shuffled_tokenizer() -> PreTrainedTokenizerFast:
    """The miniature world's words under other ids, special tokens included, and with more of them."""
    # special, so that a turn's text never holds a word the partner's tokenizer does not know
    unused = [f"<unused{i}>" for i in range(7)]
    words = [*VOCABULARY, *unused]
    random.Random(3).shuffle(words)
    tokenizer = Tokenizer(WordLevel({word: index for index, word in enumerate(words)}))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<eos>",
        bos_token="<bos>",
        additional_special_tokens=unused,
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def write_speakers(folder: Path) -> dict[Role, Path]:
    """Train and save both; the long one has the smaller model."""
    torch.set_num_threads(1)
    tokenizers = {Role.LONG: build_tokenizer(), Role.SHORT: shuffled_tokenizer()}
    hidden = {Role.LONG: 32, Role.SHORT: 64}
    for role in ROLES:
        torch.manual_seed(len(role))
        _write_speaker(folder / role, tokenizers[role], [role], hidden[role])
    return {role: folder / role for role in ROLES}


def write_tied_speaker(folder: Path) -> dict[Role, Path]:
    """Train and save one model that plays both roles."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    _write_speaker(folder, build_tokenizer(), ROLES, hidden=64)
    return dict.fromkeys(ROLES, folder)


def _write_speaker(folder: Path, tokenizer: PreTrainedTokenizerFast, roles: Sequence[Role], hidden: int) -> None:
    model = _model(tokenizer, hidden)
    _teach(model, tokenizer, roles)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _model(tokenizer: PreTrainedTokenizerFast, hidden: int) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=2,
        num_attention_heads=hidden // 32,
        num_key_value_heads=hidden // 32,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def _teach(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, roles: Sequence[Role]) -> None:
    rng = random.Random(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(STEPS):
        views = [_view(tokenizer, roles[number % len(roles)], rng) for number in range(BATCH * len(roles))]
        ids, labels = _padded(views, tokenizer.pad_token_id)
        loss = model(input_ids=ids, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def _view(tokenizer: PreTrainedTokenizerFast, role: Role, rng: random.Random) -> RoleView:
    problem, answer = rng.choice(sums(100))
    a, b = problem.split()[1], problem.split()[4]
    turns = [(Role.LONG, f"<think> {a} + {b} {'again ' * rng.randint(0, 2)}</think>")]
    if rng.random() < 0.3:
        turns.append((Role.SHORT, "<answer> so </rethink>"))
        turns.append((Role.LONG, "<think> wait </think>"))
    turns.append((Role.SHORT, f"<answer> {'so ' * rng.randint(0, 2)}\\boxed{{ {answer} }} </answer>"))
    view = RoleView(tokenizer, role, NO_PROMPTS, problem)
    for speaker, text in turns:
        if speaker is role:
            view.add_own(tokenizer.encode(text, add_special_tokens=False), None)
        else:
            view.add_partner(text)
    return view


def _padded(views: list[RoleView], pad: Any) -> tuple[torch.Tensor, torch.Tensor]:
    width = max(len(view.context_ids) for view in views)
    ids = torch.full((len(views), width), pad)
    labels = torch.full((len(views), width), -100)
    for row, view in enumerate(views):
        context, own = torch.tensor(view.context_ids), torch.tensor(view.response_mask, dtype=torch.bool)
        ids[row, : len(context)] = context
        start = len(view.prompt_ids)
        labels[row, start : len(context)][own] = context[start:][own]
    return ids, labels
