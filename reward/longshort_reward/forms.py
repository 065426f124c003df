"""The form of an answer: amounts, words, lists, sets, tuples, relations, times of day; and what is not said with it.

`parse` makes a form of tokens. It first takes away what a writer puts around an answer: `The answer is`, `Area =`,
`approximately`, `, since x > 0`. `equality` compares forms.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from longshort_reward.amounts import Amount, Clock, read_amount, read_clock
from longshort_reward.numerals import merged
from longshort_reward.tokens import Token, latex
from longshort_reward.trimming import trimmed
from longshort_reward.units import singular
from longshort_reward.variants import in_radians, variants

Tokens = tuple[Token, ...]
_PAIRS = {"(": (")", "]"), "[": (")", "]"), r"\{": (r"\}",)}
OPENING, CLOSING = frozenset({"(", "[", "{", r"\{"}), frozenset({")", "]", "}", r"\}"})
RELATIONS = frozenset(
    {"=", "<", ">", r"\le", r"\ge", r"\neq", r"\approx", r"\equiv", r"\cong", r"\sim", r"\to", r"\in"}
)
_OPERATORS = frozenset({"+", "-", "*", "/", "^", "_", r"\cdot", r"\times", r"\div", "=", "<", ">", r"\le", r"\ge"})
_STRAY = frozenset({"?", "#", "@", "&", "|", '"', r"\sim", r"\lnot", r"\neg", "~"})
_NUMERALS = "two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
BASES = {word: str(value) for value, word in enumerate(_NUMERALS.split(), start=2)}
_DEEPEST = 12
_MOST_ITEMS = 400


@dataclass(frozen=True, slots=True)
class Words:
    """An answer in words, or a name."""

    text: str


@dataclass(frozen=True, slots=True)
class Several:
    """Values in a row; `brackets` is `""`, or the opening and the closing one."""

    items: tuple["Form", ...]
    brackets: str
    joined: str = ","
    """`and` if that is a word between them; `names` if the values are those of a tuple of names."""


@dataclass(frozen=True, slots=True)
class Relation:
    """Terms with the signs between them: `x = 3`, `1 < x \\le 3`."""

    terms: tuple[Tokens, ...]
    signs: tuple[str, ...]
    value: "Form"
    """The last term."""


@dataclass(frozen=True, slots=True)
class Congruence:
    """`x \\equiv 3 \\pmod 7`; `name` may be empty."""

    name: str
    residue: "Form"
    modulus: "Form"


@dataclass(frozen=True, slots=True)
class Ratio:
    """`3:2`."""

    terms: tuple["Form", ...]


@dataclass(frozen=True, slots=True)
class Based:
    """A number written in a base."""

    digits: str
    base: str


@dataclass(frozen=True, slots=True)
class Mixed:
    """Words and mathematics that make no other form: compared piece by piece, never evaluated."""

    tokens: Tokens


Form = Amount | Clock | Words | Several | Relation | Congruence | Ratio | Based | Mixed


def parse(tokens: Sequence[Token], depth: int = 0) -> Form:
    """The form of an answer."""
    tokens = trimmed(merged(tokens) if depth == 0 else list(tokens))
    if not tokens or depth > _DEEPEST or len(tokens) > 4000 or not well_formed(tokens):
        return Mixed(tuple(tokens))
    plain = _remainder(tokens) or _based(tokens) or read_clock(tokens) or _words(tokens)
    if plain is not None:
        return plain
    tokens = _without_and(tokens)
    if (parts := split(tokens)) is not None:
        several = _several(parts, depth)
        both = any(tokens[i].value.casefold() == "and" for i in top_level(tokens))
        return replace(several, joined="and") if both and isinstance(several, Several) else several
    if (congruence := _congruence(tokens, depth)) is not None:
        return congruence
    if (relation := _relation(tokens, depth)) is not None:
        return relation
    if (bracketed := _bracketed(tokens, depth)) is not None:
        return bracketed
    if (ratio := _ratio(tokens, depth)) is not None:
        return ratio
    return _value(tokens, depth)


def _value(tokens: list[Token], depth: int) -> Form:
    alternatives = variants(tokens)
    if len(alternatives) > 1:
        return Several(tuple(parse(each, depth + 1) for each in alternatives), "")
    amount = read_amount(in_radians(tokens))
    if (
        amount is None
        or (amount.tokens and not well_formed(amount.tokens))
        or any(token.value == r"\forall" for token in tokens)
    ):
        return _product(tokens, depth) or Mixed(tuple(tokens))
    return amount


def _product(tokens: list[Token], depth: int) -> Form | None:
    r"""`3\text{ cm} \times 4\text{ cm}`, as a row of amounts."""
    places = [i for i in top_level(tokens) if tokens[i].value in (r"\times", "by")]
    factors = [read_amount(part) for part in _cut(tokens, places)] if places else []
    whole = tuple(factor for factor in factors if factor is not None)
    return Several(whole, "**") if whole and len(whole) == len(factors) else None


def top_level(tokens: Sequence[Token]) -> list[int]:
    """The places outside all brackets."""
    places, depth = [], 0
    for index, token in enumerate(tokens):
        if (token.value in CLOSING or token.value.startswith(r"\end{")) and token.kind != "text":
            depth -= 1
        if depth == 0:
            places.append(index)
        if (token.value in OPENING or token.value.startswith(r"\begin{")) and token.kind != "text":
            depth += 1
    return places


def well_formed(tokens: Sequence[Token]) -> bool:
    """Whether brackets close, operators have what they join, and no sign is left over."""
    depth = 0
    for token in tokens:
        depth += (token.value in ("(", "[", r"\{")) - (token.value in (")", "]", r"\}"))
    if depth != 0 and [token.value for token in tokens if token.value in "[]"] not in (
        ["[", "["],
        ["]", "["],
        ["]", "]"],
    ):
        return False
    if (
        not tokens
        or tokens[-1].value in _OPERATORS
        or tokens[0].value in ("*", "/", "^", "_", r"\cdot", r"\times", "!", ".")
    ):
        return False
    environment = any(token.value.startswith(r"\begin{") for token in tokens)
    stray = sum(token.value in _STRAY and not (environment and token.value == "&") for token in tokens)
    bars = sum(token.value == "|" for token in tokens)
    dots = any(a.value == b.value == "." for a, b in pairwise(tokens))
    empty = any(a.value == "{" and b.value == "}" for a, b in pairwise(tokens))
    paired = bars % 2 == 0 or tokens[0].value == r"\{"  # `\{x | x > 2\}`
    return stray == bars and paired and not dots and not empty and not _loose_number(tokens)


def _loose_number(tokens: Sequence[Token]) -> bool:
    """Two numbers side by side that are no mixed number."""
    for index in range(len(tokens) - 1):
        if tokens[index].kind == tokens[index + 1].kind == "number":
            mixed = index + 2 < len(tokens) and tokens[index + 2].value == "/" and tokens[index + 1].spaced
            if not mixed:
                return True
    return False


def split(tokens: list[Token]) -> list[list[Token]] | None:
    """The parts of a list at its commas and its words `and`, `or`; None if it is no list."""
    places = [i for i in top_level(tokens) if _separates(tokens[i])]
    if not places or _is_compound(tokens, places):
        return None
    parts = [part for part in _cut(tokens, places) if part]
    return parts if 1 < len(parts) <= _MOST_ITEMS or (len(parts) == 1 and len(places) > 0) else None


def _separates(token: Token) -> bool:
    if token.kind == "text":
        return token.value.casefold() in ("and", "or", "和", "或", "与", "及")
    return token.value in (",", ";", r"\vee", r"\\")


def _is_compound(tokens: list[Token], places: list[int]) -> bool:
    """`3 hours and 5 minutes`: one amount."""
    if len(places) != 1 or tokens[places[0]].value.casefold() != "and":
        return False
    amount = read_amount(tokens)
    return amount is not None and not amount.tokens


def _without_and(tokens: list[Token]) -> list[Token]:
    """`3 and 1/2` as a mixed number."""
    places = [i for i, token in enumerate(tokens) if token.kind == "text" and token.value.casefold() == "and"]
    if len(places) != 1 or not _is_mixed_number(tokens[: places[0]], tokens[places[0] + 1 :]):
        return tokens
    place = places[0]
    return [*tokens[:place], replace(tokens[place + 1], spaced=True), *tokens[place + 2 :]]


def _is_mixed_number(before: list[Token], after: list[Token]) -> bool:
    values = [token.value for token in after]
    proper = values[:1] == [r"\frac"] or (len(values) >= 3 and values[1] == "/")
    whole = len(before) == 1 and before[0].value.isdigit()
    digits = [int(value) for value in values if value.isdigit()]
    return whole and proper and len(digits) == 2 and 0 < digits[0] < digits[1]


def _cut(tokens: Sequence[Token], places: Sequence[int]) -> list[list[Token]]:
    parts, start = [], 0
    for place in (*places, len(tokens)):
        parts.append(list(tokens[start:place]))
        start = place + 1
    return parts


def _several(parts: list[list[Token]], depth: int, brackets: str = "") -> Form:
    items: list[Form] = []
    for part in parts:
        form = parse(part, depth + 1)
        # `(\pm 1, 2)` is two pairs, `\pm 1, \pm 2` four numbers.
        items += (
            form.items if isinstance(form, Several) and form.brackets == "" and brackets in ("", r"\{\}") else [form]
        )
    return Several(tuple(_named(items)), brackets)


def _named(items: list[Form]) -> list[Form]:
    """`n = 2, 3, 4`: the name is that of all."""
    if len(items) > 1 and isinstance(items[0], Relation) and items[0].signs == ("=",):
        first = items[0]
        if all(isinstance(item, Amount) for item in items[1:]):
            return [
                first,
                *(
                    replace(first, value=item, terms=(first.terms[0], item.tokens))
                    for item in items[1:]
                    if isinstance(item, Amount)
                ),
            ]
    return items


def _bracketed(tokens: list[Token], depth: int) -> Form | None:
    """A set, a tuple, an interval; one value in brackets is that value."""
    opening, closing = tokens[0].value, tokens[-1].value
    if (
        (len(tokens) == 5 and opening == "]")
        or (opening == "[" and closing == "[")
        or (opening == "]" and closing in "[]")
    ):
        tokens = _foreign_interval(tokens)
        opening, closing = tokens[0].value, tokens[-1].value
    if closing not in _PAIRS.get(opening, ()) or _end_of_bracket(tokens) != len(tokens) - 1:
        return None
    inner = tokens[1:-1]
    brackets = opening + closing
    if not inner:
        return Amount((Token("command", r"\emptyset"),), None, None) if opening == r"\{" else None
    places = [i for i in top_level(inner) if inner[i].value in (",", ";", "{,}")]
    if not places:
        if any(token.value in ("|", ":") or token.value in RELATIONS for token in inner):
            return _by_condition(inner, depth) if opening == r"\{" else None
        form = parse(inner, depth + 1)
        if isinstance(form, Several) and opening != r"\{":
            return form if form.brackets or len(form.items) < 2 else replace(form, brackets=form.brackets)
        return replace(form, brackets=brackets) if isinstance(form, Several) and form.brackets == "" else form
    if brackets != r"\{\}" and len(all_pairs := _tuples(_cut(inner, places))) > 1:
        return Several(tuple(_several(parts, depth + 1, brackets) for parts in all_pairs), "")
    return _several(_cut(inner, places), depth + 1, brackets)


def _by_condition(inner: list[Token], depth: int) -> Form | None:
    r"""`\{x : x > 2\}` as its condition."""
    places = [i for i in top_level(inner) if inner[i].value in ("|", ":")]
    if len(places) != 1 or not is_name(inner[: places[0]]):
        return None
    condition = parse(inner[places[0] + 1 :], depth + 1)
    return condition if isinstance(condition, Relation) else None


def _foreign_interval(tokens: list[Token]) -> list[Token]:
    first = Token("sign", "(" if tokens[0].value == "]" else tokens[0].value)
    last = Token("sign", ")" if tokens[-1].value == "[" else tokens[-1].value)
    return [first, *tokens[1:-1], last]


def _end_of_bracket(tokens: list[Token]) -> int:
    depth = 0
    for index, token in enumerate(tokens):
        depth += (token.value in ("(", "[", r"\{", "{")) - (token.value in (")", "]", r"\}", "}"))
        if depth == 0:
            return index
    return -1


def _tuples(parts: list[list[Token]]) -> list[list[list[Token]]]:
    """All tuples that the signs of the components make."""
    made: list[list[list[Token]]] = [[]]
    for part in parts:
        made = [[*head, each] for head in made for each in variants(part)]
        if len(made) > 16:
            return [parts]
    return made


def _congruence(tokens: list[Token], depth: int) -> Form | None:
    place = next((i for i in top_level(tokens) if tokens[i].value in (r"\pmod", r"\bmod", r"\mod")), None)
    if place is None:
        wrapped = [i for i, token in enumerate(tokens) if token.value == r"\mod" and i and tokens[i - 1].value == "("]
        if len(wrapped) != 1 or tokens[-1].value != ")":
            return None
        left, right = tokens[: wrapped[0] - 1], tokens[wrapped[0] + 1 : -1]
    else:
        left, right = tokens[:place], tokens[place + 1 :]
    right = right[1:-1] if right and right[0].value == "{" and right[-1].value == "}" else right
    equal = [i for i in top_level(left) if left[i].value in (r"\equiv", "=", r"\cong")]
    if len(equal) > 1 or not right or not left:
        return None
    name, residue = (latex(left[: equal[0]]), left[equal[0] + 1 :]) if equal else ("", left)
    return Congruence(name, parse(residue, depth + 1), parse(right, depth + 1)) if residue else None


def _relation(tokens: list[Token], depth: int) -> Form | None:
    places = [i for i in top_level(tokens) if tokens[i].value in RELATIONS and tokens[i].kind != "text"]
    if not places or len(places) > 20:
        return None
    if len(alternatives := variants(tokens)) > 1:
        return Several(tuple(parse(each, depth + 1) for each in alternatives), "")
    parts = _cut(tokens, places)
    signs = tuple(tokens[i].value for i in places)
    if not parts[-1]:
        return Mixed(tuple(tokens))
    value = parse(parts[-1], depth + 1)
    if signs == (r"\in",) and is_name(parts[0]):
        return value
    if signs == ("=",) and (dictionary := _by_component(parts, depth)) is not None:
        return dictionary
    return Relation(tuple(tuple(part) for part in parts), signs, value)


def _by_component(parts: list[list[Token]], depth: int) -> Form | None:
    """`(x, y) = (1, 2)` as `x = 1, y = 2` in this order."""
    sides = [
        part[1:-1] if part and part[0].value == "(" and _end_of_bracket(part) == len(part) - 1 else [] for part in parts
    ]
    left, right = (_cut(side, [i for i in top_level(side) if side[i].value == ","]) for side in sides)
    if len(left) < 2 or len(left) != len(right) or not all(map(is_name, left)):
        return None
    made = [
        Relation((tuple(name), tuple(value)), ("=",), parse(value, depth + 1))
        for name, value in zip(left, right, strict=True)
    ]
    return Several(tuple(made), "()", joined="names")


def is_name(tokens: Sequence[Token]) -> bool:
    """Whether the tokens name something: `x`, `a_n`, `f(x)`, `f^{-1}(x)`, `\\frac{dy}{dx}`, `m\\angle ABC`."""
    if not tokens or tokens[0].kind not in ("letter", "command", "text"):
        return False
    values = latex(tokens).replace(" ", "")
    if values in (r"\frac{dy}{dx}", r"\frac{d}{dx}f(x)") or tokens[0].value in (
        r"\angle",
        r"\triangle",
        r"\min",
        r"\max",
    ):
        return True
    position = 1
    if tokens[0].value in (r"\hat", r"\vec", r"\overline", r"\mathbb", r"\mathcal", r"\overrightarrow"):
        position = _group_end(tokens, 1)
    elif tokens[0].kind == "command" and tokens[0].value in (
        r"\frac",
        r"\sqrt",
        r"\log",
        r"\sin",
        r"\cos",
        r"\tan",
        r"\ln",
    ):
        return False
    while position < len(tokens) and tokens[position].value in ("_", "^", "'"):
        script = tokens[position].value
        end = position + 1 if script == "'" else _group_end(tokens, position + 1)
        exponent = latex(tokens[position + 2 : end - 1])
        if script == "^" and exponent not in ("-1", "*", "+", "-") and not exponent.startswith(r"\prime"):
            return False
        position = end
    if position < len(tokens) and tokens[position].value == "(":
        return _end_of_bracket(list(tokens[position:])) == len(tokens) - position - 1
    return position >= len(tokens) or (
        all(token.kind == "letter" for token in tokens[position:]) and tokens[0].value.isupper()
    )


def _group_end(tokens: Sequence[Token], position: int) -> int:
    end = _end_of_bracket(list(tokens[position : position + 200]))
    return len(tokens) if end < 0 else position + end + 1


def _ratio(tokens: list[Token], depth: int) -> Form | None:
    places = [
        i for i in top_level(tokens) if tokens[i].value == ":" or (tokens[i].value == "to" and tokens[i].kind == "text")
    ]
    parts = _cut(tokens, places)
    if not places or not all(parts):
        return None
    terms = tuple(parse(part, depth + 1) for part in parts)
    # The words in `ten to one` are a ratio of amounts only.
    return Ratio(terms) if all(isinstance(term, Amount) for term in terms) else None


def _based(tokens: list[Token]) -> Form | None:
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


def _remainder(tokens: list[Token]) -> Form | None:
    """`12 R 3`, and `3'`, which may be feet, minutes or a slip."""
    values = [token.value.casefold() for token in tokens]
    if len(tokens) == 3 and tokens[0].kind == tokens[2].kind == "number" and values[1] in ("r", "rem", "remainder"):
        return Mixed((tokens[0], Token("text", "remainder"), tokens[2]))
    lone = len(tokens) == 2 and values[1] == "'" and tokens[0].kind == "number"
    return Mixed(tuple(tokens)) if lone else None


def _words(tokens: list[Token]) -> Form | None:
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
