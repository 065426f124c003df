"""Whether two answers are equal, form by form; what takes algebra is asked of a function that the caller gives.

In the caller's process there is none, and such answers stay undecided (None); in the grader process it is math-verify.
Text never reaches it: it would be dropped, or read as a product of letters.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

from longshort_reward.reading.amounts import Amount, Clock, equal_amounts, same_clock
from longshort_reward.reading.forms import Based, Congruence, Form, Mixed, Ratio, Relation, Several, Tokens, Words
from longshort_reward.reading.lists import in_order, is_grouped, leaves_out, names_of, numbers_of
from longshort_reward.reading.numerals import merged
from longshort_reward.reading.parsing import parse
from longshort_reward.reading.rationals import Number, equal_numbers, number
from longshort_reward.reading.reader import read
from longshort_reward.reading.relations import (
    INEQUALITIES,
    are_inequalities,
    depths,
    interval,
    one_variable,
    other_sides,
    relation_tokens,
    union,
    upwards,
    without_percent,
)
from longshort_reward.reading.structure import is_name, well_formed
from longshort_reward.reading.tokens import Token, UnreadableError, latex
from longshort_reward.reading.trimming import trimmed
from longshort_reward.reading.verdicts import all_of, any_of

Algebra = Callable[[str, str], bool | None]


def undecided(answer: str, gold: str) -> bool | None:
    """The algebra of a process that has none."""
    return None


def equal(answer: str, gold: str, algebra: Algebra = undecided) -> bool | None:
    """Whether `answer` equals `gold`, both as LaTeX or in words; None when `algebra` does not know."""
    try:
        ours, theirs = (trimmed(merged(read(text))) for text in (answer, gold))
    except UnreadableError:
        return answer.strip() == gold.strip() and bool(gold.strip())
    if not ours:
        return False
    if _values(ours) == _values(theirs):
        return True
    return _Comparison(algebra).forms(parse(ours), parse(theirs), ours, theirs)


def states_another(answer: str, gold: str) -> bool:
    """Whether the answer is a number and not the one that the ground truth is."""
    try:
        a, b = (parse(read(text)) for text in (answer, gold))
    except UnreadableError:
        return False
    return (
        isinstance(a, Amount) and isinstance(b, Amount) and bool(a.value and b.value) and equal_amounts(a, b) is False
    )


def _values(tokens: Sequence[Token]) -> list[tuple[str, bool]]:
    # A space between two numbers means something, every other one does not.
    return [
        (token.value, token.spaced and token.kind == before.kind == "number")
        for before, token in zip((Token("", ""), *tokens), tokens, strict=False)
    ]


def _primed(tokens: Sequence[Token]) -> set[tuple[str, int]]:
    """What has primes, and how many."""
    found: set[tuple[str, int]] = set()
    before, count = "", 0
    for token in (*tokens, Token("", "")):
        if token.value == "'":
            count += 1
            continue
        if count:
            found.add((before, count))
        before, count = token.value, 0
    return found


_SCALES = {"k": 1000, "K": 1000, "M": 10**6, "B": 10**9}


def _scaled(answer: Amount) -> Amount | None:
    """`9.5k` as 9500, for a ground truth that is a number: otherwise the letter is a variable, or a unit."""
    if [token.kind for token in answer.tokens] != ["number", "letter"] or answer.tokens[1].value not in _SCALES:
        return None
    factor = Token("number", str(_SCALES[answer.tokens[1].value]))
    tokens = (answer.tokens[0], Token("command", r"\cdot"), factor)
    return replace(answer, tokens=tokens, value=number(tokens))


class _Comparison:
    """Compares forms; three-valued like `equal`."""

    def __init__(self, algebra: Algebra) -> None:
        self._algebra = algebra

    def forms(self, a: Form, b: Form, ours: Sequence[Token] = (), theirs: Sequence[Token] = ()) -> bool | None:
        """Whether an answer `a` equals a ground truth `b`; `ours` and `theirs` are the whole of them as tokens."""
        if isinstance(a, Relation) and not isinstance(b, Relation):
            return self._value_of(a, b, strict=False, ours=ours, theirs=theirs)
        if isinstance(b, Relation) and not isinstance(a, Relation):
            return self._value_of(b, a, strict=True, ours=theirs, theirs=ours)
        if isinstance(a, Amount) and isinstance(b, Amount):
            return self._amounts(a, b)
        if isinstance(a, Several) or isinstance(b, Several):
            return self._several(a, b, ours, theirs)
        if isinstance(a, Relation) and isinstance(b, Relation):
            return self._relations(a, b)
        if isinstance(a, Clock) or isinstance(b, Clock):
            return isinstance(a, Clock) and isinstance(b, Clock) and same_clock(a, b)
        if isinstance(a, Words) or isinstance(b, Words):
            return self._words(a, b)
        if isinstance(a, Based) or isinstance(b, Based):
            return self._based(a, b)
        if isinstance(a, Ratio) or isinstance(b, Ratio):
            return self._ratios(a, b)
        if isinstance(a, Congruence) or isinstance(b, Congruence):
            return self._congruences(a, b)
        if isinstance(a, Mixed) and isinstance(b, Mixed):
            return self._pieces(a.tokens, b.tokens)
        if isinstance(a, Mixed) or isinstance(b, Mixed):
            return False
        return self._whole(ours, theirs)

    def _whole(self, ours: Sequence[Token], theirs: Sequence[Token]) -> bool | None:
        """By algebra, unless there is text, something left out, or something malformed in one of them."""
        for tokens in (ours, theirs):
            if not tokens or any(token.kind == "text" or token.value in (r"\ldots", r"\forall") for token in tokens):
                return False
            if not well_formed(tokens):
                return False
        # math-verify reads over primes: to it a derivative is the function.
        if _primed(ours) != _primed(theirs):
            return False
        return self._algebra(latex(ours), latex(theirs))

    def expressions(self, ours: Tokens, theirs: Tokens) -> bool | None:
        """Whether two expressions are equal."""
        a, b = number(ours), number(theirs)
        if a is not None and b is not None:
            return equal_numbers(a, b)
        return True if _values(ours) == _values(theirs) else self._whole(ours, theirs)

    def _amounts(self, a: Amount, b: Amount) -> bool | None:
        if b.value is not None and (scaled := _scaled(a)) is not None and equal_amounts(scaled, b):
            return True
        decided = equal_amounts(a, b)
        if decided is None:
            return self.expressions(a.tokens, b.tokens)
        return decided

    def _words(self, a: Form, b: Form) -> bool | None:
        if isinstance(a, Words) and isinstance(b, Words):
            return a.text.casefold() == b.text.casefold() if len(b.text) > 1 else a.text == b.text
        return False

    def _based(self, a: Form, b: Form) -> bool | None:
        if isinstance(a, Based) and isinstance(b, Based):
            return a == b
        based, other = (a, b) if isinstance(a, Based) else (b, a)
        assert isinstance(based, Based)
        # A base on one side only counts as left out.
        return isinstance(other, Amount) and other.unit is None and latex(other.tokens).upper() == based.digits

    def _ratios(self, a: Form, b: Form) -> bool | None:
        if isinstance(a, Ratio) and isinstance(b, Ratio):
            if len(a.terms) != len(b.terms):
                return False
            left, right = numbers_of(a.terms), numbers_of(b.terms)
            if left is None or right is None:
                return all_of(self.forms(x, y) for x, y in zip(a.terms, b.terms, strict=True))
            return all(x * right[0] == y * left[0] for x, y in zip(left, right, strict=True)) and left[0] != 0
        ratio, other = (a, b) if isinstance(a, Ratio) else (b, a)
        assert isinstance(ratio, Ratio)
        terms = numbers_of(ratio.terms)
        if (
            not isinstance(other, Amount)
            or other.unit is not None
            or other.value is None
            or terms is None
            or len(terms) != 2
        ):
            return False
        # `10:1` is not 10.
        return terms[1] != 0 and other.value.value.denominator > 1 and terms[0] / terms[1] == other.value.value

    def _congruences(self, a: Form, b: Form) -> bool | None:
        if not (isinstance(a, Congruence) and isinstance(b, Congruence)):
            return False
        if a.name and b.name and a.name != b.name:
            return False
        moduli = self.forms(a.modulus, b.modulus)
        numbers = numbers_of((a.residue, b.residue, a.modulus))
        if numbers is not None and numbers[2] != 0:
            same: bool | None = (numbers[0] - numbers[1]) % numbers[2] == 0
        else:
            same = self.forms(a.residue, b.residue)
        return all_of((moduli, same))

    def _value_of(
        self, relation: Relation, other: Form, *, strict: bool, ours: Sequence[Token], theirs: Sequence[Token]
    ) -> bool | None:
        """A relation against what is none: `x = 3` is 3, `5 + 5 = 10` is 10, `x < 3` is an interval."""
        signs, terms = set(relation.signs), relation.terms
        if not terms[0] or (isinstance(other, (Words, Mixed, Clock, Congruence)) and signs != {"="}):
            return False
        if signs == {r"\approx"} and len(terms) == 2:
            return self._rounded(relation, other)
        if signs == {r"\to"}:
            return len(terms) == 2 and is_name(terms[0]) and self.forms(relation.value, other)
        if signs == {"="}:
            if is_name(terms[0]) and len(terms) == 2:
                return self.forms(relation.value, other)
            if strict:
                return self._whole_ordered(ours, theirs, strict)
            stated = [self._stated(x, y) for x, y in pairwise(terms)]
            return all_of((*stated, self.forms(relation.value, other)))
        if isinstance(other, (Amount, Several)) and (signs <= INEQUALITIES or signs == {r"\neq"}):
            if isinstance(other, Amount) and other.value is not None:
                return False
            return self._whole_ordered(relation_tokens(relation), theirs, strict)
        return False

    def _whole_ordered(self, ours: Sequence[Token], theirs: Sequence[Token], swapped: bool) -> bool | None:
        ours, theirs = without_percent(ours), without_percent(theirs)
        return self._whole(theirs, ours) if swapped else self._whole(ours, theirs)

    def _stated(self, left: Tokens, right: Tokens) -> bool | None:
        """Whether `left = right` may be said: a name for a value, or two equal values."""
        letters = [token for token in left if token.kind == "letter" and token.value not in ("e", "i")]
        bare = [token for token, depth in depths(left) if depth == 0]
        if letters and not any(token.kind == "number" for token in bare):
            return True
        return self.expressions(left, right)

    def _rounded(self, relation: Relation, other: Form) -> bool | None:
        r"""`\sqrt2 \approx 1.41` is the root of two, and `x \approx 1.41` is 1.41; `3 \approx 4` is nothing."""
        left, right = parse(relation.terms[0]), relation.value
        if is_name(relation.terms[0]):
            return self.forms(right, other)
        if isinstance(left, Amount) and isinstance(right, Amount) and left.value and right.value:
            a, b = left.value.value, right.value.value
            if abs(a - b) * 20 > max(abs(a), abs(b)):
                return False
        return self.forms(left, other)

    def _relations(self, a: Relation, b: Relation) -> bool | None:
        a, b = upwards(a), upwards(b)
        if not a.terms[0] or not b.terms[0]:
            a, b = (Relation(((), *each.terms[1:]), each.signs, each.value) for each in (a, b))
        if a.signs == b.signs:
            if len(a.signs) == 1 and (sides := other_sides(a, b)) is not None:
                left, right = sides
                return self.forms(parse(without_percent(left)), parse(without_percent(right)))
            pairs = [
                x == y or self.expressions(without_percent(x), without_percent(y))
                for x, y in zip(a.terms[:-1], b.terms[:-1], strict=True)
            ]
            if all_of((*pairs, self.forms(parse(without_percent(a.terms[-1])), parse(without_percent(b.terms[-1]))))):
                return True
        if not a.terms[0] or (len(a.signs) > 1 and a.signs == b.signs and not one_variable(a)):
            return False if not a.terms[0] else all_of(pairs)
        if a.signs != b.signs:
            ours, theirs = interval(a) or relation_tokens(a), interval(b) or relation_tokens(b)
            return self._whole(without_percent(ours), without_percent(theirs))
        return self._whole(without_percent(relation_tokens(a)), without_percent(relation_tokens(b)))

    def _several(self, a: Form, b: Form, ours: Sequence[Token], theirs: Sequence[Token]) -> bool | None:
        inequalities = are_inequalities(a), are_inequalities(b)
        if not (isinstance(a, Several) and isinstance(b, Several)) or inequalities[0] != inequalities[1]:
            return self._several_and_one(*((b, a, theirs, ours) if inequalities[1] else (a, b, ours, theirs)))
        names = a.joined == "names", b.joined == "names"
        if (any(names) and not all(names)) or (a.brackets != b.brackets and {a.brackets, b.brackets} & {"()"}):
            left, right = in_order(a), in_order(b)
            if left is not None and right is not None and (left, right) != (a, b):
                return self._ordered(left.items, right.items)
        kinds = {a.brackets, b.brackets}
        if "**" in kinds:
            return kinds == {"**"} and self._ordered(a.items, b.items)
        if leaves_out(a) or leaves_out(b):
            return len(kinds) == 1 and self._ordered(a.items, b.items)
        if kinds <= {"", r"\{\}"}:
            return self._unordered(a.items, b.items, repeated=r"\{\}" not in kinds)
        if r"\{\}" in kinds or (len(kinds) == 2 and "" not in kinds and (kinds != {"()", "[]"} or len(a.items) == 2)):
            return False
        if len(kinds) == 2 and names_of(a.items) != names_of(b.items):
            return self._ordered(a.items, b.items)
        return self._ordered(a.items, b.items)

    def _several_and_one(self, a: Form, b: Form, ours: Sequence[Token], theirs: Sequence[Token]) -> bool | None:
        several, other = (a, b) if isinstance(a, Several) else (b, a)
        assert isinstance(several, Several)
        relations = [item for item in several.items if isinstance(item, Relation)]
        if several.brackets == "" and len(relations) == len(several.items):
            united = union(relations, several.joined)
            if united is None:
                return False
            one, rest = read(united), theirs if several is a else ours
            return self._whole(one, rest) if several is a else self._whole(rest, one)
        if isinstance(other, Amount) and other.value is not None:
            groups = "".join(token.value for item in several.items if isinstance(item, Amount) for token in item.tokens)
            # `100,200,300` was read as one number where no spaces stood.
            return is_grouped(several) and number([Token("number", groups)]) == other.value
        if several.brackets in ("**", "") or not isinstance(other, (Amount, Relation)):
            return False
        return self._whole(ours, theirs)

    def _ordered(self, ours: Sequence[Form], theirs: Sequence[Form]) -> bool | None:
        if len(ours) != len(theirs):
            return False
        return all_of(self.forms(x, y) for x, y in zip(ours, theirs, strict=True))

    def _unordered(self, ours: Sequence[Form], theirs: Sequence[Form], *, repeated: bool) -> bool | None:
        """Each of ours has its partner among theirs; where `repeated`, each counts as often as it stands."""
        if repeated and len(ours) != len(theirs):
            return False
        left = list(theirs)
        unknown = False
        for item in ours:
            found = None
            for index, other in enumerate(left if repeated else theirs):
                verdict = self.forms(item, other)
                if verdict:
                    found = index
                    break
                unknown = unknown or verdict is None
            if found is None:
                return None if unknown else False
            if repeated:
                del left[found]
        if not repeated:
            back = [any_of(self.forms(item, other) for item in ours) for other in theirs]
            return all_of(back)
        return True

    def _pieces(self, ours: Tokens, theirs: Tokens) -> bool | None:
        """Words by their letters, numbers by their value, everything else by its sign, in order."""
        if len(ours) != len(theirs):
            return False
        for x, y in zip(ours, theirs, strict=True):
            if x.kind == y.kind == "number":
                if not equal_numbers(number([x]) or Number(Fraction(0)), number([y]) or Number(Fraction(1))):
                    return False
            elif x.value.casefold() != y.value.casefold():
                return False
        return True
