"""What stands around an answer and is not part of it: introductions, labels, quotation marks, stops, remarks."""

from longshort_reward.reading.tokens import Token
from longshort_reward.reading.units import ALTERING
from longshort_reward.reading.vocabulary import words

_LEADS = words(
    "answer final so therefore thus hence is are was we get have obtain find which gives equals equal about "
    "approximately approx roughly around exactly only just total value result circa nearly almost it be the a an of "
    "our my correct required desired solution that there will should must ans ≈ "
    "答案 答案是 答案为 约 约为 大约 大约是 等于 为 是 共 共有 故 所以 因此 则 得 即 结果 结果是 最终答案 最终答案是 解"
)
_NO_LABEL = frozenset({"no", "not", "never", "except", "if", "option", "choice", "nor", "neither", "than", "cannot"})
_DROPPED_SIGNS = frozenset({r"\implies", r"\therefore", r"\to", "=", r"\approx", ":", r"\\", r"\item", ",", ";"})
_STOPS = frozenset({".", ",", ";", ":", r"\\", r"\square", r"\blacksquare", r"\qedsymbol", r"\qed", r"\checkmark"})
_REMARKS = words("since because where as which so hence thus therefore 因为 其中")
_IN_BRACKETS = words(
    "approx approximately approximate where since because about rounded exact exactly exclusive simplified as in "
    "约 近似 其中"
) - {"exclusive", "in"}
_CONDITIONS = frozenset({"<", ">", r"\le", r"\ge", r"\neq", r"\in"})


def trimmed(tokens: list[Token]) -> list[Token]:
    """The tokens of the answer itself."""
    for _ in range(8):
        before = len(tokens)
        tokens = _without_remark(_without_lead(_without_stops(_without_quotes(tokens))))
        if len(tokens) == before:
            break
    return tokens


def _without_quotes(tokens: list[Token]) -> list[Token]:
    while len(tokens) > 2 and tokens[0].value == tokens[-1].value and tokens[0].value in ("'", '"', "*"):
        tokens = tokens[1:-1]
    if len(tokens) > 4 and tokens[0].value == tokens[1].value == "'" == tokens[-1].value == tokens[-2].value:
        tokens = tokens[2:-2]
    return tokens


def _without_stops(tokens: list[Token]) -> list[Token]:
    end = len(tokens)
    while end > 1 and tokens[end - 1].value in _STOPS:
        end -= 1
        # One full stop ends a sentence, several leave something out.
        if tokens[end].value == "." and tokens[end - 1].value == ".":
            return tokens
    return tokens[:end]


def _without_lead(tokens: list[Token]) -> list[Token]:
    start = 0
    while start < len(tokens) - 1 and tokens[start].value in _DROPPED_SIGNS:
        start += 1
    tokens = tokens[start:]
    words = 0
    while words < len(tokens) and tokens[words].kind == "text":
        words += 1
    if words and words < len(tokens):
        label = [token.value.casefold() for token in tokens[:words]]
        ends_label = tokens[words].value in (":", "=")
        if ends_label and not _NO_LABEL & set(label) and words + 1 < len(tokens):
            return tokens[words + 1 :]
        says = label[-1] in ("is", "are", "equals", "be") and not _NO_LABEL & set(label)
        if (says or all(word in _LEADS for word in label)) and tokens[words].value not in (
            "<",
            ">",
            r"\le",
            r"\ge",
            "^",
            "_",
            "/",
        ):
            return tokens[words:]
    if 1 < words == len(tokens):
        # Words after an introduction: `the answer is east`.
        last = max((i for i, token in enumerate(tokens[:-1]) if token.value.casefold() in ("is", "答案")), default=-1)
        if last > 0 and all(token.value.casefold() in _LEADS for token in tokens[: last + 1]):
            return tokens[last + 1 :]
    if words == 2 == len(tokens) and tokens[0].value.casefold() in _LEADS - {"a", "an", "the", "so", "only"}:
        return tokens[1:]
    return tokens


def _without_remark(tokens: list[Token]) -> list[Token]:
    for index, token in enumerate(tokens):
        if index and token.kind == "text" and token.value.casefold() in _REMARKS:
            before = tokens[index - 1].value
            if any(each.kind != "text" for each in tokens[:index]) and not _open(tokens[:index]):
                return tokens[: index - 1] if before in (",", ";", ".") else tokens[:index]
    if tokens and tokens[-1].value == ")" and (opening := _opening(tokens)):
        remark = tokens[opening + 1].kind == "text" and tokens[opening + 1].value.casefold() in _IN_BRACKETS
        condition = tokens[opening].spaced and any(token.value in _CONDITIONS for token in tokens[opening:])
        if remark or condition:
            return tokens[:opening]
    return tokens


def _open(tokens: list[Token]) -> bool:
    depth = 0
    for token in tokens:
        depth += (token.value in ("(", "[", r"\{", "{")) - (token.value in (")", "]", r"\}", "}"))
    return depth != 0


def _opening(tokens: list[Token]) -> int:
    """Where the bracket opens that the last token closes; 0 when nowhere."""
    depth = 0
    for index in range(len(tokens) - 1, 0, -1):
        depth += (tokens[index].value == ")") - (tokens[index].value == "(")
        if depth == 0:
            return index
    return 0


assert not _LEADS & ALTERING - {"is", "are", "about", "than", "of", "around", "to"}, "a lead may not alter a number"
