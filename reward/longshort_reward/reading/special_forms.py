"""Answers that are one piece: words and names, numbers in a base, quotients with a remainder."""

from longshort_reward.reading.amounts import Amount
from longshort_reward.reading.forms import Based, Form, Mixed, Words
from longshort_reward.reading.structure import top_level
from longshort_reward.reading.tokens import Token
from longshort_reward.reading.units import singular

_NUMERALS = "two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"


BASES = {word: str(value) for value, word in enumerate(_NUMERALS.split(), start=2)}


def based(tokens: list[Token]) -> Form | None:
    tokens = _base_below(tokens)
    places = [i for i in top_level(tokens) if tokens[i].value == "_"]
    if len(places) != 1 or tokens[-1].value != "}":
        return None
    digits, base = list(tokens[: places[0]]), list(tokens[places[0] + 2 : -1])
    if digits and digits[0].value == "(" and digits[-1].value == ")":
        digits = digits[1:-1]
    if base and base[0].value == "(" and base[-1].value == ")":
        base = base[1:-1]
    written = "".join(token.value for token in digits)
    named = "".join(token.value for token in base)
    named = BASES.get(named.casefold(), named)
    if not written or not named.isdigit() or not written.replace(".", "").isalnum():
        return None
    if not any(token.kind == "number" for token in digits) and not (int(named) > 10 and len(written) > 1):
        return None
    if any(
        not character.isdigit() and ord(character.upper()) - 55 >= int(named)
        for character in written
        if character != "."
    ):
        return None
    return Based(written.upper().lstrip("0") or "0", named)


def _base_below(tokens: list[Token]) -> list[Token]:
    r"""`52 \text{ base } 8`, `52 (base 8)` and `52_{\text{base } 8}` as `52_{8}`."""
    place = next((i for i, token in enumerate(tokens) if token.kind == "text" and token.value.casefold() == "base"), 0)
    digits, base = tokens[:place], [token for token in tokens[place + 1 :] if token.value not in (")", "}")]
    while digits and digits[-1].value in ("(", "in", "{", "_"):
        digits.pop()
    if not digits or len(base) != 1:
        return tokens
    return [*digits, Token("sign", "_"), Token("sign", "{"), *base, Token("sign", "}")]


def remainder(tokens: list[Token]) -> Form | None:
    """`12 R 3`, and `3'`, which may be feet, minutes or a slip."""
    values = [token.value.casefold() for token in tokens]
    if len(tokens) == 3 and tokens[0].kind == tokens[2].kind == "number" and values[1] in ("r", "rem", "remainder"):
        return Mixed((tokens[0], Token("text", "remainder"), tokens[2]))
    lone = len(tokens) == 2 and values[1] == "'" and tokens[0].kind == "number"
    return Mixed(tuple(tokens)) if lone else None


def words_or_name(tokens: list[Token]) -> Form | None:
    """Text only; or a run of letters that is no product."""
    if all(token.kind == "text" for token in tokens):
        if len(tokens) == 1 and not tokens[0].value[0].isalpha():
            return None
        kept = [token.value.casefold() for token in tokens if token.value.casefold() not in ("a", "an", "the")]
        if {"and", "or"} & set(kept) and len(kept) > 2:
            return None
        if kept == ["empty", "set"]:
            return Amount((Token("command", r"\emptyset"),), None, None)
        return Words(" ".join(map(singular, kept))) if kept else Words(tokens[0].value)
    letters = [token.value for token in tokens if token.kind == "letter"]
    if len(letters) == len(tokens) > 1 and not _is_product(letters):
        run = "".join(letters)
        return Words(run.casefold() if set(run.casefold()) & set("aeiou") or run.isupper() else run)
    return _formula(tokens)


def _is_product(letters: list[str]) -> bool:
    """Letters that may be variables side by side: `xy`, not `odd`, `XI`, `on`."""
    run = set(letters)
    if len(run) < len(letters) or not "".join(letters).islower():
        return False
    return run <= set("abcdxyz") or not run & set("aeiou") or run <= set("uvw")


def _formula(tokens: list[Token]) -> Form | None:
    """A chemical formula or the name of points: capital letters with numbers below, in their order."""
    capitals = sum(token.kind == "letter" and token.value.isupper() for token in tokens)
    others = [
        token for token in tokens if token.kind not in ("letter", "number") and token.value not in ("_", "{", "}")
    ]
    if capitals < 2 or others or tokens[0].kind != "letter":
        return None
    return Words("".join(token.value for token in tokens))
