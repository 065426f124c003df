"""The page of `longshort serve` in a real browser. Skipped where no Chromium is installed.

`CHROMIUM` names the browser's program if it is not on the PATH.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from helpers.llm_server import completion, failure, serve
from helpers.serving import save_word_models, served, word_pair
from test_report_browser import PROGRAM, contrast, playwright

from verl_longshort.serve.page import headers, page

KEY = "the-key"
EVIL = "<img src=x onerror='window.hacked = true'><script>window.hacked = true</script>"
QUESTION = "start 2 ; a 2 ?"
WIDTHS = (390, 1280)
SCHEMES = ("light", "dark")
in_browser = pytest.mark.skipif(PROGRAM is None, reason="no Chromium on the PATH")

Page = Any
# a busy machine takes its time
playwright.expect.set_options(timeout=60_000)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return save_word_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def url(models: dict[str, Path]) -> Iterator[str]:
    """A server with a key, a single model that writes HTML, and prices."""
    with pytest.MonkeyPatch.context() as patch, serve(None) as single:  # type: ignore[arg-type]
        patch.setenv("PAGE_KEY", KEY)
        more = [
            "longshort.api_key_env=PAGE_KEY",
            "longshort.environment.max_turns=4",
            f"longshort.single.base_url={single.url}",
            "longshort.single.model=one-model",
            "longshort.prices={long: 1.0, short: 2.0, single: 3.0}",
        ]
        with served(word_pair(models, *more)) as running:
            yield running.url.removesuffix("v1")


@pytest.fixture
def single() -> Iterator[Any]:
    """The single model's server."""

    async def respond(_: Any) -> Any:
        return completion(EVIL, tokens=321)

    with serve(respond) as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as play:
        started = play.chromium.launch(executable_path=PROGRAM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def opened(browser: Any, url: str, single: Any, request: pytest.FixtureRequest) -> Iterator[Page]:
    """The page at the width and in the colours of the test's parameter; fails on any complaint."""
    width, scheme = getattr(request, "param", (1280, "light"))
    tab = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    complaints: list[str] = []
    tab.on("console", lambda message: complaints.append(message.text))
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on("request", lambda sent: None if sent.url.startswith((url, "data:")) else complaints.append(sent.url))
    tab.goto(url)
    yield tab
    tab.close()
    assert [complaint for complaint in complaints if "status of 40" not in complaint] == []


ALL = pytest.mark.parametrize("opened", [(width, scheme) for width in WIDTHS for scheme in SCHEMES], indirect=True)


def ask(tab: Page, question: str = QUESTION, *, key: str = KEY) -> None:
    tab.fill("#key", key)
    tab.fill("#question", question)
    tab.click("#ask")


def ended(tab: Page) -> None:
    """Wait until nothing is under way; without a script, which the page's policy would not run."""
    playwright.expect(tab.locator("#ask")).to_be_enabled()


def answered(tab: Page, count: int = 1) -> Any:
    """The newest exchange, when it is complete."""
    playwright.expect(tab.locator("table")).to_have_count(count)
    ended(tab)
    return tab.locator(".exchange").first


@in_browser
@ALL
def test_both_roles_beside_a_single_model(opened: Page) -> None:
    ask(opened)
    exchange = answered(opened)
    assert opened.locator("[autofocus]").count() == 0  # it and the key's focus exclude each other
    assert opened.title() == "longshort"
    long, short = exchange.locator(".turn.long"), exchange.locator(".turn.short")
    assert long.locator("summary").inner_text() == "long turn 1 · 3 tokens"
    assert long.get_attribute("open") is None
    assert not long.locator(".text").is_visible()
    assert short.locator(".text").inner_text().strip() == "\\boxed{ 4 }"
    long.locator("summary").click()
    assert long.locator(".text").inner_text().strip() == "so"
    rows = [row.split("\t") for row in exchange.locator("table").inner_text().split("\n")[1:]]
    assert [row[:3] for row in rows] == [
        ["the pair", "2", "8"],
        ["· long", "1", "3"],
        ["· short", "1", "5"],
        ["one-model", "1", "321"],
    ]
    assert [row[4] for row in rows] == ["0.000013", "0.0000030", "0.000010", "0.00096"]
    wide = opened.evaluate("document.documentElement.scrollWidth")
    assert wide <= opened.evaluate("document.documentElement.clientWidth")


@in_browser
def test_what_a_model_or_a_person_wrote_does_not_run(opened: Page) -> None:
    ask(opened)
    exchange = answered(opened)
    assert EVIL in exchange.locator(".turn.single .text").inner_text()
    ask(opened, EVIL)
    ended(opened)
    assert opened.locator(".question").first.inner_text() == EVIL
    assert opened.evaluate("window.hacked") is None
    assert opened.locator("main img, main script").count() == 0


@in_browser
@pytest.mark.parametrize("opened", [(390, scheme) for scheme in SCHEMES], indirect=True)
def test_text_can_be_read(opened: Page) -> None:
    """WCAG's 4.5 to 1."""
    pairs = opened.evaluate(
        """() => {
          const probe = document.body.appendChild(document.createElement("i"));
          const rgb = (name) => {
            probe.style.color = `var(--${name})`;
            return getComputedStyle(probe).color.match(/[0-9.]+/g).slice(0, 3).map(Number);
          };
          const inks = [["ink", "page"], ["ink", "surface"], ["ink", "sunken"], ["page", "ink"], ["bad", "page"]];
          for (const name of ["muted", "long", "short", "single", "bad"]) inks.push([name, "surface"]);
          inks.push(["muted", "page"]);
          return inks.map(([ink, paper]) => [`${ink} on ${paper}`, rgb(ink), rgb(paper)]);
        }"""
    )
    assert {name: round(contrast(*colours), 2) for name, *colours in pairs if contrast(*colours) < 4.5} == {}


@in_browser
def test_the_key_is_asked_for_and_a_conversation_goes_on(opened: Page, single: Any) -> None:
    playwright.expect(opened.locator("#error")).to_contain_text("a key is needed")
    playwright.expect(opened.locator("#key")).to_be_focused()
    ask(opened, key="another")
    ended(opened)
    assert "a key is needed" in opened.locator("#error").inner_text()
    assert opened.input_value("#question") == QUESTION
    ask(opened)
    answered(opened)
    assert opened.locator("#error").inner_text() == ""
    ask(opened)
    answered(opened, 2)
    said = [message["content"] for message in single.bodies[-1]["messages"]]
    assert said == [QUESTION, "\\boxed{ 4 }", QUESTION]
    opened.click("#new")
    assert opened.locator(".exchange").count() == 0
    ask(opened)
    answered(opened)
    assert len(single.bodies[-1]["messages"]) == 1


@in_browser
def test_effort_and_an_answer_that_is_not_complete(opened: Page) -> None:
    opened.fill("#tokens", "4")
    ask(opened)
    exchange = answered(opened)
    assert "The answer is not complete: no tokens are left." in exchange.inner_text()


@in_browser
def test_stop_ends_the_engines_work(browser: Any, models: dict[str, Path]) -> None:
    limits = [f"longshort.environment.{key}=200" for key in ("token_budget", "long_turn_tokens")]
    with served(word_pair(models, *limits, "longshort.environment.short_turn_tokens=20", long="endless")) as running:
        tab = browser.new_page()
        tab.goto(running.url.removesuffix("v1"))
        tab.fill("#question", QUESTION)
        tab.keyboard.press("Enter")
        playwright.expect(tab.locator(".turn.long .text")).to_contain_text("so so")
        tab.click("#stop")
        ended(tab)
        assert "Stopped." in tab.locator(".exchange").inner_text()
        assert tab.locator(".columns.two").count() == 0
        tab.close()


def test_the_single_model_fails(url: str, single: Any) -> None:
    """As the page is told: a status and a sentence, and nothing of the endpoint."""
    headers = {"authorization": f"Bearer {KEY}"}

    def post(body: Any) -> tuple[int, str]:
        reply = httpx.post(f"{url}page/single", json=body, headers=headers, timeout=60)
        return reply.status_code, reply.json()["error"]["message"]

    messages = [{"role": "user", "content": "x"}]
    for wrong in ({}, [], {"messages": []}, {"messages": [{"role": "system", "content": "x"}]}, {"messages": "x"}):
        assert post(wrong)[0] == 400
    for status, expected in ((500, 503), (400, 400)):

        async def refuse(_: Any, status: int = status) -> Any:
            return failure(status)

        with serve(refuse):
            assert post({"messages": messages})[0] == expected


def test_a_browser_without_the_key_gets_the_file_which_asks_nobody_else(url: str) -> None:
    accepts = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
    reply = httpx.get(url, headers=accepts)
    assert (reply.status_code, reply.text, reply.headers["www-authenticate"]) == (401, page(), "Bearer")
    with_key = httpx.get(url, headers={**accepts, "authorization": f"Bearer {KEY}"})
    assert (with_key.status_code, with_key.text) == (200, page())
    # whoever is no browser is told in a sentence
    assert httpx.get(url).json()["error"]["type"] == "authentication_error"
    assert "http" not in page().replace("http-equiv", "")
    policy = headers()["content-security-policy"]
    assert reply.headers["content-security-policy"] == policy
    assert policy.startswith("default-src 'none'; connect-src 'self'; ")
    assert policy.count("'sha256-") == 2
    assert "unsafe" not in policy
    for name in ("page/facts", "v1/models"):
        assert httpx.get(url + name).status_code == 401
