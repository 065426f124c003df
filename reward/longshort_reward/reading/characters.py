"""Unicode in an answer: every character that stands for mathematics is written in plain LaTeX.

Signs, superscripts, vulgar fractions, full-width forms, digits of other scripts, punctuation of Chinese and Japanese,
invisible characters. Letters of other scripts stay: they are words and units.
"""

import re
import unicodedata

_COMMANDS = {
    **{"×": r"\times", "✕": r"\times", "⨯": r"\times", "·": r"\cdot", "⋅": r"\cdot", "∙": r"\cdot", "•": r"\cdot"},
    **{"∗": "*", "÷": r"\div", "≤": r"\le", "≦": r"\le", "⩽": r"\le", "≥": r"\ge", "≧": r"\ge", "⩾": r"\ge"},
    **{"≠": r"\neq", "≈": r"\approx", "≅": r"\cong", "≡": r"\equiv", "±": r"\pm", "∓": r"\mp", "∞": r"\infty"},
    **{"∪": r"\cup", "∩": r"\cap", "∈": r"\in", "∉": r"\notin", "∅": r"\emptyset", "⊂": r"\subset", "⊆": r"\subseteq"},
    **{"→": r"\to", "⇒": r"\Rightarrow", "⟹": r"\implies", "∴": r"\therefore", "∠": r"\angle", "△": r"\triangle"},
    **{"∑": r"\sum", "∏": r"\prod", "∫": r"\int", "∂": r"\partial", "∖": r"\setminus", "ℓ": r"\ell", "…": r"\ldots"},
    **{"⋯": r"\ldots", "⌊": r"\lfloor", "⌋": r"\rfloor", "⌈": r"\lceil", "⌉": r"\rceil", "∀": r"\forall"},
    **{"⟨": r"\langle", "⟩": r"\rangle", "〈": r"\langle", "〉": r"\rangle", "∃": r"\exists", "¬": r"\lnot"},
    **{"ℝ": r"\mathbb{R}", "ℤ": r"\mathbb{Z}", "ℕ": r"\mathbb{N}", "ℚ": r"\mathbb{Q}", "ℂ": r"\mathbb{C}"},
    **{"∧": r"\land", "∨": r"\lor", "⊥": r"\perp", "∥": r"\parallel", "∣": "|", "∼": r"\sim", "∶": ":", "⇔": r"\iff"},
    **{"°": r"^\circ", "º": r"^\circ", "˚": r"^\circ", "℃": r"^\circ\text{C}", "℉": r"^\circ\text{F}"},
    **{"µ": r"\mu", "Ω": r"\Omega", "√": r"\sqrt", "∛": r"\sqrt[3]", "∜": r"\sqrt[4]"},
}
_GREEK_LETTERS = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi rho varsigma sigma tau "
    "upsilon phi chi psi omega"
)
_GREEK = tuple(_GREEK_LETTERS.split())
_CAPITALS = {"Γ": "Gamma", "Δ": "Delta", "Θ": "Theta", "Λ": "Lambda", "Ξ": "Xi", "Π": "Pi", "Σ": "Sigma"}
_CAPITALS |= {"Φ": "Phi", "Ψ": "Psi", "ϕ": "phi", "ϵ": "epsilon", "ϑ": "vartheta", "φ": "varphi"}
_PLAIN = {
    **dict.fromkeys("−–—‐‑‒―﹣－➖", "-"),
    **dict.fromkeys("＋﹢➕", "+"),
    **dict.fromkeys("⁄∕╱", "/"),
    **dict.fromkeys("“”„«»「」『』", '"'),
    **dict.fromkeys("‘’‚`", "'"),
    **{"′": "'", "″": "''", "、": ",", "،": ",", "。": ".", "｡": ".", "〔": "(", "〕": ")", "【": "[", "】": "]"},
    **{"〜": r"\sim ", "～": r"\sim ", "؟": "?", "٪": "%", "٫": ".", "٬": ",", "￥": "¥", "￡": "£", "￠": "¢"},
    "｛": r"\{",
    "｝": r"\}",
}
_SMALL = {
    **dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ⁿⁱ", "^0123456789+-=()ni"[1:], strict=True)),
    **dict(zip("₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎ₙₐₓ", "0123456789+-=()nax", strict=True)),
}
_RAISED = frozenset("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ⁿⁱ")
_MARKS = {"\u0307": r"\dot", "\u0305": r"\overline", "\u0304": r"\overline", "\u0302": r"\hat", "\u20d7": r"\vec"}
_ROOT = re.compile(r"\\sqrt(?:\[[34]\])?$")


def plain_characters(text: str) -> str:
    """`text` in ASCII and LaTeX, but for letters of other scripts and signs of currencies."""
    if text.isascii():
        return text
    written: list[str] = []
    small = ""
    for character in text:
        kind = "" if character not in _SMALL else "^" if character in _RAISED else "_"
        if small and kind != small:
            written.append("}")
        if kind and kind != small:
            written.append(kind + "{")
        small = kind
        if mark := _MARKS.get(character):
            if written:
                written.append(f"{mark}{{{written.pop()}}}")
        else:
            written.append(_SMALL[character] if kind else _plain(character))
    return "".join(written) + ("}" if small else "")


def _plain(character: str) -> str:
    if character.isascii():
        return character
    if character in _PLAIN:
        return _PLAIN[character]
    command = _COMMANDS.get(character) or _letter(character)
    if command is not None:
        return command if _ROOT.match(command) else command + " "
    category = unicodedata.category(character)
    # Invisible characters, emoji and check marks say nothing.
    if category in ("Cf", "So", "Sk", "Cs", "Co", "Cn", "Mn"):
        folded = unicodedata.normalize("NFKC", character) if category == "So" else ""
        return _square(folded) if folded.isascii() and folded.isalnum() else ""
    if category in ("Zs", "Zl", "Zp", "Cc"):
        return " "
    if category == "Nd":
        return str(unicodedata.decimal(character))
    if unicodedata.numeric(character, None) is not None and "FRACTION" in unicodedata.name(character, ""):
        top, _, bottom = unicodedata.normalize("NFKC", character).partition("\u2044")
        return rf"\frac{{{top}}}{{{bottom}}}" if bottom else character
    folded = unicodedata.normalize("NFKC", character)
    return folded if folded == character else "".join(map(_plain, folded))


def _letter(character: str) -> str | None:
    if character in _CAPITALS:
        return "\\" + _CAPITALS[character]
    index = ord(character) - ord("α")
    return "\\" + _GREEK[index] if 0 <= index < len(_GREEK) else None


def _square(unit: str) -> str:
    """`㎡` folds to `m2`."""
    return f"{unit[:-1]}^{unit[-1]}" if unit[:1].isalpha() and unit[-1:].isdigit() else unit
