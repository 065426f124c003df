"""From tokens to the form of an answer, without what is not said with it (`trimming`)."""

from collections.abc import Sequence
from dataclasses import replace

from longshort_reward.reading.amounts import Amount, read_amount, read_clock
from longshort_reward.reading.forms import Congruence, Form, Mixed, Ratio, Relation, Several
from longshort_reward.reading.numerals import merged
from longshort_reward.reading.special_forms import based, remainder, words_or_name
from longshort_reward.reading.structure import RELATIONS, cut, end_of_bracket, is_name, top_level, well_formed
from longshort_reward.reading.tokens import Token, latex
from longshort_reward.reading.trimming import trimmed
from longshort_reward.reading.variants import in_radians, variants

_DEEPEST = 12


_MOST_ITEMS = 400

_PAIRS = {"(": (")", "]"), "[": (")", "]"), r"\{": (r"\}",)}


def parse(tokens: Sequence[Token], depth: int = 0) -> Form:
    """The form of an answer."""
    tokens = trimmed(merged(tokens) if depth == 0 else list(tokens))
    if not tokens or depth > _DEEPEST or len(tokens) > 4000 or not well_formed(tokens):
        return Mixed(tuple(tokens))
    plain = remainder(tokens) or based(tokens) or read_clock(tokens) or words_or_name(tokens)
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
    if (bracketed := _bracketed(_signed_tuple(tokens), depth)) is not None:
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
    factors = [read_amount(part) for part in cut(tokens, places)] if places else []
    whole = tuple(factor for factor in factors if factor is not None)
    return Several(whole, "**") if whole and len(whole) == len(factors) else None


def split(tokens: list[Token]) -> list[list[Token]] | None:
    """The parts of a list at its commas and its words `and`, `or`; None if it is no list."""
    places = [i for i in top_level(tokens) if _separates(tokens[i])]
    if not places or _is_compound(tokens, places):
        return None
    parts = [part for part in cut(tokens, places) if part]
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
    if closing not in _PAIRS.get(opening, ()) or end_of_bracket(tokens) != len(tokens) - 1:
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
    if brackets != r"\{\}" and len(all_pairs := _tuples(cut(inner, places))) > 1:
        return Several(tuple(_several(parts, depth + 1, brackets) for parts in all_pairs), "")
    return _several(cut(inner, places), depth + 1, brackets)


def _signed_tuple(tokens: list[Token]) -> list[Token]:
    """`-(1, 2)` as `(-1, -2)`."""
    if len(tokens) < 4 or tokens[0].value != "-" or tokens[1].value != "(" or tokens[-1].value != ")":
        return tokens
    if end_of_bracket(tokens[1:]) != len(tokens) - 2:
        return tokens
    parts = cut(tokens[2:-1], [i for i in top_level(tokens[2:-1]) if tokens[2 + i].value == ","])
    if len(parts) < 2 or not all(parts):
        return tokens
    out = [tokens[1]]
    for part in parts:
        out += [Token("sign", "-"), *(part if len(part) == 1 else [Token("sign", "("), *part, Token("sign", ")")])]
        out.append(Token("sign", ","))
    return [*out[:-1], tokens[-1]]


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
    parts = cut(tokens, places)
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
        part[1:-1] if part and part[0].value == "(" and end_of_bracket(part) == len(part) - 1 else [] for part in parts
    ]
    left, right = (cut(side, [i for i in top_level(side) if side[i].value == ","]) for side in sides)
    if len(left) < 2 or len(left) != len(right) or not all(map(is_name, left)):
        return None
    made = [
        Relation((tuple(name), tuple(value)), ("=",), parse(value, depth + 1))
        for name, value in zip(left, right, strict=True)
    ]
    return Several(tuple(made), "()", joined="names")


def _ratio(tokens: list[Token], depth: int) -> Form | None:
    places = [
        i for i in top_level(tokens) if tokens[i].value == ":" or (tokens[i].value == "to" and tokens[i].kind == "text")
    ]
    parts = cut(tokens, places)
    if not places or not all(parts):
        return None
    terms = tuple(parse(part, depth + 1) for part in parts)
    # The words in `ten to one` are a ratio of amounts only.
    return Ratio(terms) if all(isinstance(term, Amount) for term in terms) else None
