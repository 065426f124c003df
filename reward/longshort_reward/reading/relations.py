"""Equations and inequalities turned round, taken apart and written as intervals."""

from collections.abc import Sequence

from longshort_reward.reading.forms import Form, Relation, Several, Tokens
from longshort_reward.reading.parsing import parse
from longshort_reward.reading.structure import is_name
from longshort_reward.reading.tokens import Token, latex

FLIPPED = {">": "<", r"\ge": r"\le"}


INEQUALITIES = frozenset({"<", ">", r"\le", r"\ge"})


SIDES = {"<": ("(-\\infty,", ")"), r"\le": ("(-\\infty,", "]"), ">": ("(", ",\\infty)"), r"\ge": ("[", ",\\infty)")}


def depths(tokens: Sequence[Token]) -> list[tuple[Token, int]]:
    out, depth = [], 0
    for token in tokens:
        depth -= token.value in (")", "]", "}")
        out.append((token, depth))
        depth += token.value in ("(", "[", "{")
    return out


def relation_tokens(relation: Relation) -> list[Token]:
    out = list(relation.terms[0])
    for sign, term in zip(relation.signs, relation.terms[1:], strict=True):
        out += [Token("command" if sign.startswith("\\") else "sign", sign), *term]
    return out


def interval(relation: Relation) -> list[Token] | None:
    r"""The interval that `-2 < x \le 2` is."""
    if len(relation.terms) != 3 or not set(relation.signs) <= {"<", r"\le"} or not is_name(relation.terms[1]):
        return None
    brackets = ("(" if relation.signs[0] == "<" else "["), (")" if relation.signs[1] == "<" else "]")
    opening, comma, closing = (Token("sign", sign) for sign in (brackets[0], ",", brackets[1]))
    return [opening, *relation.terms[0], comma, *relation.terms[2], closing]


def upwards(relation: Relation) -> Relation:
    """A chain of greater-than signs turned round."""
    if not set(relation.signs) <= set(FLIPPED) or not relation.terms[0]:
        return relation
    terms = tuple(reversed(relation.terms))
    return Relation(terms, tuple(FLIPPED[sign] for sign in reversed(relation.signs)), parse(terms[-1]))


def one_variable(relation: Relation) -> bool:
    letters = {token.value for term in relation.terms for token in term if token.kind == "letter"}
    return len(letters) == 1


def other_sides(a: Relation, b: Relation) -> tuple[Tokens, Tokens] | None:
    """Where one side of both relations is the same name: the other sides."""
    for name, other in ((0, 1), (1, 0)):
        if a.terms[name] == b.terms[name] and is_name(a.terms[name]):
            return a.terms[other], b.terms[other]
    return None


def without_percent(tokens: Sequence[Token]) -> Tokens:
    out: list[Token] = []
    for token in tokens:
        if token.value == "%" and out and out[-1].kind == "number":
            amount = out.pop()
            out += [Token("command", r"\frac"), Token("sign", "{"), amount, Token("sign", "}")]
            out += [Token("sign", "{"), Token("number", "100"), Token("sign", "}")]
        else:
            out.append(token)
    return tuple(out)


def are_inequalities(form: Form) -> bool:
    if not isinstance(form, Several) or form.brackets:
        return False
    return all(isinstance(item, Relation) and set(item.signs) <= set(SIDES) for item in form.items)


def union(relations: Sequence[Relation], joined: str) -> str | None:
    """The inequalities in one variable as a union of intervals (with `and`, their section), in LaTeX."""
    parts: list[str] = []
    for relation in relations:
        if len(relation.signs) != 1 or not is_name(relation.terms[0]) or relation.signs[0] not in SIDES:
            return None
        before, behind = SIDES[relation.signs[0]]
        parts.append(before + latex(relation.terms[1]) + behind)
    if len({latex(relation.terms[0]) for relation in relations}) > 1:
        return None
    if (
        joined == "and"
        and len(parts) == 2
        and {relation.signs[0] in ("<", r"\le") for relation in relations} == {True, False}
    ):
        lower, upper = sorted(parts, key=lambda part: part.startswith("(-"))
        return lower.partition(",")[0] + "," + upper.partition(",")[2]
    return (r"\cap" if joined == "and" else r"\cup").join(parts)
