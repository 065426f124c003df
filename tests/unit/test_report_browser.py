"""The report in a real browser, without a network. Skipped where no Chromium is installed.

`CHROMIUM` names the browser's program if it is not on the PATH.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.run import EVIL, PROBLEMS, make_run, write_evaluation, write_sampled

from verl_longshort.base.files import write_text
from verl_longshort.report.page import asset, render
from verl_longshort.report.report import report
from verl_longshort.report.run_dir import read_runs
from verl_longshort.report.trajectories import trajectories_section

playwright = pytest.importorskip("playwright.sync_api")

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "chrome")
PROGRAM = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, PROGRAMS)), None)
SCHEMES = ("light", "dark")
WIDTHS = (375, 1280)

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no Chromium on the PATH")

Page = Any


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = make_run(tmp_path_factory.mktemp("runs") / "run")
    write_evaluation(root, "hostile", mode="long_cot", text=EVIL)
    report([root], out=root / "report.html", base=None, trajectories=3000, seed=0)
    return root / "report.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as play:
        started = play.chromium.launch(executable_path=PROGRAM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def opened(browser: Any, file: Path, request: pytest.FixtureRequest) -> Iterator[Page]:
    """The page at the width and in the colours of the test's parameter; fails on any complaint."""
    width, scheme = getattr(request, "param", (1280, "light"))
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme, offline=True)
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda sent: None if is_local(sent.url) else complaints.append(sent.url))
    page.goto(file.as_uri())
    yield page
    page.close()
    assert complaints == []


def is_local(url: str) -> bool:
    return url.startswith(("file:", "data:"))


ALL = pytest.mark.parametrize("opened", [(width, scheme) for width in WIDTHS for scheme in SCHEMES], indirect=True)


@ALL
def test_it_fits_its_width(opened: Page) -> None:
    for details in opened.query_selector_all("details:not(.entry) > summary"):
        details.click()
    opened.locator(".entry summary").first.click()
    wide = opened.evaluate("document.documentElement.scrollWidth")
    assert wide <= opened.evaluate("document.documentElement.clientWidth")


@ALL
def test_text_can_be_read(opened: Page) -> None:
    """All colours of text against what they stand on: WCAG's 4.5 to 1."""
    pairs = opened.evaluate(
        """() => {
          const probe = document.body.appendChild(document.createElement("i"));
          const rgb = (name) => {
            probe.style.color = `var(--${name})`;
            return getComputedStyle(probe).color.match(/[0-9.]+/g).slice(0, 3).map(Number);
          };
          const inks = [["ink", "page"], ["ink", "surface"], ["ink", "sunken"], ["muted", "page"]];
          for (const name of ["muted", "long", "short", "pair", "right", "wrong", "published"])
            inks.push([name, "surface"]);
          for (const name of ["long", "short", "pair", "published", "warn"])
            inks.push([name, `${name}-soft`]);
          inks.push(["muted", "sunken"]);
          return inks.map(([ink, paper]) => [`${ink} on ${paper}`, rgb(ink), rgb(paper)]);
        }"""
    )
    low = {name: round(contrast(ink, paper), 2) for name, ink, paper in pairs if contrast(ink, paper) < 4.5}
    assert low == {}


def contrast(one: list[float], other: list[float]) -> float:
    """WCAG 2.1 contrast ratio of two sRGB colours (0 … 255)."""
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: list[float]) -> float:
    """WCAG 2.1 relative luminance."""
    shares = [value / 255 for value in colour]
    linear = [s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares]
    return sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def shown(page: Page) -> str:
    return str(page.locator(".count").inner_text())


def choose(page: Page, **filters: str) -> None:
    for name, value in filters.items():
        page.select_option(f"select[name={name}]", value)
    page.wait_for_timeout(250)


def test_filters(opened: Page) -> None:
    assert shown(opened).startswith(f"1–{PROBLEMS} of {PROBLEMS}")
    assert opened.locator(".entry .name").first.inner_text() == "L1S0"
    choose(opened, evaluation="")
    assert f"of {6 * PROBLEMS} " in shown(opened)
    choose(opened, verdict="wrong")
    wrong = shown(opened)
    assert "0.0 % correct" in wrong
    assert opened.locator(".entry .mark.right").count() == 0
    choose(opened, stop="turn_cut")
    assert "of 3 " in shown(opened)
    choose(opened, turns="1")
    assert shown(opened) == "No trajectory fits."
    opened.click("button[type=reset]")
    opened.wait_for_timeout(250)
    assert f"of {6 * PROBLEMS} " in shown(opened)


def test_search_and_order(opened: Page) -> None:
    choose(opened, evaluation="")
    opened.fill("input[name=text]", "NUMBER 3")
    opened.wait_for_timeout(250)
    assert "of 6 " in shown(opened)
    opened.fill("input[name=text]", "")
    choose(opened, order="long")
    assert opened.locator(".entry .name").first.inner_text() in ("long-CoT", "hostile")


def test_pages(opened: Page) -> None:
    choose(opened, evaluation="")
    assert opened.locator("[data-step='-1']").is_disabled()
    opened.click("[data-step='1']")
    assert shown(opened).startswith("21–36 of 36")
    assert opened.locator("[data-step='1']").is_disabled()


def test_a_trajectory_turn_by_turn(opened: Page) -> None:
    entry = opened.locator(".entry").first
    entry.locator("summary").click()
    entry.locator(".turn").first.wait_for()
    assert entry.locator(".turn").count() == 4
    assert entry.locator(".turn.long .tag").first.inner_text() == "long"
    assert "turn 2 · 5 tokens" in entry.locator(".turn.short .head").first.inner_text()
    assert entry.locator(".boxed").inner_text() == "\\boxed{ 1 }"
    assert "FM short 1" in entry.locator(".foot").inner_text()
    entry.get_by_role("button", name="All answers to this problem").click()
    opened.wait_for_timeout(250)
    assert "of 6 " in shown(opened)
    opened.get_by_role("button", name="Show all problems").click()
    assert "of 36 " in shown(opened)


def test_what_a_model_wrote_does_not_run(opened: Page) -> None:
    choose(opened, evaluation="")
    opened.fill("input[name=text]", "window.hacked")
    opened.wait_for_timeout(250)
    entry = opened.locator(".entry").first
    entry.locator("summary").click()
    assert EVIL in entry.locator("pre").inner_text()
    assert opened.evaluate("window.hacked") is None
    assert opened.locator("main img").count() == 0


def test_training_step_by_step_beside_the_evaluations(browser: Any, tmp_path: Path) -> None:
    """1000 trajectories: opens with the last step, shows one problem across steps, leaves the other viewer alone."""
    root = make_run(tmp_path / "run")
    write_sampled(root / "pair", steps=25, problems=4, sessions=10, text=EVIL)
    report([root], out=root / "report.html", base=None, trajectories=3000, seed=0)
    page = browser.new_page(viewport={"width": 1280, "height": 800}, offline=True)
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto((root / "report.html").as_uri())
    viewer, other = page.locator("#sampled"), page.locator("#trajectories .count")
    before = other.inner_text()
    count = viewer.locator(".count")
    assert count.inner_text().startswith("1–20 of 40 · 10.0 % correct")
    assert viewer.locator(".entry .name").first.inner_text() == "step 25 · S1"
    viewer.locator("select[name=evaluation]").select_option(label="step 1 · L1")
    page.wait_for_timeout(250)
    entry = viewer.locator(".entry").first
    entry.locator("summary").click()
    entry.locator(".turn").first.wait_for()
    foot = entry.locator(".foot").inner_text()
    assert "advantage long 0.7" in foot
    assert "reward short 1.1" in foot
    entry.get_by_role("button", name="All answers to this problem").click()
    page.wait_for_timeout(250)
    assert "of 250 " in count.inner_text()
    assert viewer.locator(".entry .name").first.inner_text() == "step 1 · L1"
    assert other.inner_text() == before
    assert page.evaluate("window.hacked") is None
    assert complaints == []
    page.close()


def test_it_can_be_used_from_the_keyboard(opened: Page) -> None:
    opened.locator(".entry summary").first.focus()
    opened.keyboard.press("Enter")
    assert opened.locator(".entry").first.get_attribute("open") is not None


def test_thousands_stay_quick(browser: Any, tmp_path: Path) -> None:
    for name in ("L0S0", "L1S0"):
        write_evaluation(tmp_path, name, samples=320, text="word " * 60)
    section = trajectories_section(read_runs([tmp_path], None), limit=4000, seed=0, first=None)
    whole = render("base.html.jinja", {}, title="x", sections=[section], scripts=[asset("viewer.js")])
    write_text(tmp_path / "report.html", whole)
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.goto((tmp_path / "report.html").as_uri())
    took = page.evaluate(
        """async () => {
          const field = document.querySelector("input[name=text]");
          const begin = performance.now();
          field.value = "number 3";
          field.form.dispatchEvent(new Event("submit", { cancelable: true }));
          return performance.now() - begin;
        }"""
    )
    assert "of 640 " in shown(page)
    assert took < 1000
    page.close()
