"""Values in a row: their names, their order, their numbers."""

from collections.abc import Sequence
from fractions import Fraction

from longshort_reward.reading.amounts import Amount
from longshort_reward.reading.forms import Form, Relation, Several
from longshort_reward.reading.tokens import latex


def numbers_of(forms: Sequence[Form]) -> list[Fraction] | None:
    values = [
        form.value.value for form in forms if isinstance(form, Amount) and form.value is not None and not form.unit
    ]
    return values if len(values) == len(forms) else None


def names_of(items: Sequence[Form]) -> list[str]:
    return [latex(item.terms[0]) if isinstance(item, Relation) and item.signs == ("=",) else "" for item in items]


def in_order(several: Several) -> Several | None:
    """The values of `x = 1, y = 2` as a tuple, by their names; anything else as it is."""
    names = names_of(several.items)
    if not all(names) or len(set(names)) < len(names):
        return several if not any(names) else None
    items = list(several.items)
    if several.joined != "names":
        items = [item for _, item in sorted(zip(names, items, strict=True), key=lambda pair: pair[0])]
    return Several(tuple(item.value for item in items if isinstance(item, Relation)), "()")


def leaves_out(several: Several) -> bool:
    return any(isinstance(item, Amount) and any(t.value == r"\ldots" for t in item.tokens) for item in several.items)


def is_grouped(several: Several) -> bool:
    items = [item.tokens for item in several.items if isinstance(item, Amount) and item.unit is None]
    digits = all(len(tokens) == 1 and tokens[0].value.isdigit() for tokens in items)
    return digits and len(items) == len(several.items) and all(len(tokens[0].value) == 3 for tokens in items[1:])
