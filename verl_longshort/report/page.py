"""The look shared by all pages: one HTML file with everything inside, nothing fetched from anywhere.

A page is a template that extends `base.html.jinja`, rendered by `render`. All values are escaped on their way
into it; `Markup` is for HTML that the project itself has made. Scripts run only when `render` was given them:
the page's own content security policy names their hashes and forbids every connection.
"""

import base64
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup

from verl_longshort import __version__

UNKNOWN = "–"
_TEMPLATES = files("verl_longshort.report") / "templates"


@dataclass(frozen=True, kw_only=True)
class Section:
    """One part of a page, with its place in the navigation."""

    id: str
    """Anchor: letters and hyphens."""
    title: str
    body: Markup


def render(
    template: str,
    context: Mapping[str, Any],
    *,
    title: str,
    sections: Sequence[Section] = (),
    scripts: Sequence[str] = (),
) -> str:
    """A whole page.

    `template` is a file in `templates/` that extends `base.html.jinja`. `scripts` are JavaScript sources, run in
    order at the end of the page. Raises jinja2's UndefinedError when the template asks for a value that is not in
    `context`.
    """
    hashes = [_base64(hashlib.sha256(script.encode()).digest()) for script in scripts]
    given = {
        "title": title,
        "sections": sections,
        "styles": Markup(asset("page.css")),
        "scripts": [Markup(script) for script in scripts],
        "script_policy": Markup(" ".join(f"'sha256-{digest}'" for digest in hashes) or "'none'"),
        "icon": f"data:image/svg+xml;base64,{_base64(asset('icon.svg').encode())}",
        "version": __version__,
        "made": datetime.now(timezone.utc),
    }
    return _environment().get_template(template).render({**given, **context})


def fragment(template: str, context: Mapping[str, Any]) -> Markup:
    """A part of a page, such as the body of a `Section`, from a file in `templates/`."""
    return Markup(_environment().get_template(template).render(context))


def asset(name: str) -> str:
    """The text of a file in `templates/`."""
    return (_TEMPLATES / name).read_text(encoding="utf-8")


def json_block(identity: str, value: Any) -> Markup:
    """A `<script type="application/json">` holding `value`; nothing in it can end the block."""
    return Markup('<script type="application/json" id="{}">{}</script>').format(
        identity, htmlsafe_json_dumps(value, separators=(",", ":"), ensure_ascii=False)
    )


def number(value: float | None, digits: int = 1) -> str:
    """A number with thousands separated by thin spaces; a dash when it is not known."""
    return UNKNOWN if value is None or math.isnan(value) else f"{value:,.{digits}f}".replace(",", "\u202f")


def percent(value: float | None, digits: int = 1) -> str:
    """A share (0 … 1) in per cent, without the sign; a dash when it is not known."""
    return UNKNOWN if value is None else number(100 * value, digits)


def signed(value: float | None, digits: int = 2) -> str:
    """A number with its sign, a true minus; a dash when it is not known."""
    return UNKNOWN if value is None or math.isnan(value) else f"{value:+.{digits}f}".replace("-", "\u2212")


def clock(seconds: float | None) -> str:
    """A time span such as `6 min 21 s`; a dash when it is not known."""
    if seconds is None or math.isnan(seconds):
        return UNKNOWN
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


@cache
def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(str(_TEMPLATES)),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"number": number, "percent": percent, "signed": signed, "clock": clock}
    return made


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
