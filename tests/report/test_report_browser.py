"""The page in a real browser: quiet, closed, accessible, usable from a telephone to paper."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from chromium import browser as launched
from chromium import executable
from playwright.sync_api import Browser, Page
from report_factories import ALL, HOSTILE, large

from ckptdoctor.report import render

pytestmark = pytest.mark.browser

PAGES = {**ALL, "medium": lambda: large(200), "large": large}
RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("pages")
    for name, make in PAGES.items():
        (place / f"{name}.html").write_text(render(make(), "html"), encoding="utf-8")
    return place


@pytest.fixture(scope="module")
def chrome() -> Iterator[Browser]:
    with launched() as running:
        yield running


@pytest.fixture
def visit(chrome: Browser, folder: Path) -> Callable[..., object]:
    @contextmanager
    def opened(
        name: str, *, width: int = 1200, scheme: str = "light", scripts: bool = True, media: str | None = None
    ) -> Iterator[Page]:
        """The page, which must neither complain nor ask for anything but itself."""
        context = chrome.new_context(
            viewport={"width": width, "height": 800},
            color_scheme=scheme,
            java_script_enabled=scripts,
            reduced_motion="reduce",
        )
        page = context.new_page()
        complaints: list[str] = []
        requests: list[str] = []
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append(f"dialog {dialog.message}"))
        page.on("request", lambda request: requests.append(request.url))
        address = (folder / f"{name}.html").as_uri()
        if media:
            page.emulate_media(media=media)
        page.goto(address)
        yield page
        context.close()
        assert complaints == []
        assert [url for url in requests if not url.startswith((address, "data:"))] == []

    return opened


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ALL)
def test_axe_finds_no_violation(visit, name, scheme):
    with visit(name, scheme=scheme) as page:
        page.evaluate("for (const part of document.querySelectorAll('details')) part.open = true")
        found = Axe().run(page, options={**RULES, "resultTypes": ["violations"]}).response["violations"]
        assert [(v["id"], [n["html"][:120] for n in v["nodes"][:3]]) for v in found] == []


def test_axe_does_find_a_violation_where_there_is_one(visit):
    with visit("healthy") as page:
        page.evaluate("document.querySelector('h1').insertAdjacentHTML('afterend', '<button></button>')")
        found = {v["id"] for v in Axe().run(page, options=RULES).response["violations"]}
        assert "button-name" in found


OVERFLOW = """() => {
  const root = document.documentElement;
  const wide = [...document.querySelectorAll('body *')].filter((e) => {
    const box = e.getBoundingClientRect();
    return box.width > 0 && (box.right > root.clientWidth + 1 || box.left < -1) && !e.closest('.scroll, pre, .skip, .vh');
  });
  return [root.scrollWidth - root.clientWidth, wide.slice(0, 4).map((e) => e.outerHTML.slice(0, 100))];
}"""


@pytest.mark.parametrize("width", [360, 640, 900, 1180, 1600])
@pytest.mark.parametrize("name", PAGES)
def test_nothing_overflows_at_any_width(visit, name, width):
    with visit(name, width=width) as page:
        page.evaluate("for (const part of document.querySelectorAll('details')) part.open = true")
        assert page.evaluate(OVERFLOW) == [0, []]


@pytest.mark.parametrize("name", ["nan_feature", "exploding_rnn", "float16_overflow", "hostile"])
def test_nothing_is_cut_off_on_paper(visit, name):
    with visit(name, width=680, media="print") as page:  # A4 at 96 dots an inch, less the margins
        assert page.evaluate(OVERFLOW)[0] == 0
        hidden = page.evaluate(
            "[...document.querySelectorAll('.scroll')].map((e) => e.scrollWidth - e.clientWidth).filter((d) => d > 1)"
        )
        assert hidden == []
        assert page.pdf(format="A4").startswith(b"%PDF")


def test_paper_has_no_controls(visit):
    with visit("nan_feature", media="print") as page:
        assert page.locator("button.copy:visible, input:visible").count() == 0
        assert not page.locator("nav").is_visible()
        arrows = page.evaluate(
            "[...document.querySelectorAll('th button')].map((b) => getComputedStyle(b, '::after').content)"
        )
        assert {"none"} == set(arrows)


@pytest.mark.parametrize("name", PAGES)
def test_every_anchor_leads_to_something_visible(visit, name):
    with visit(name) as page:
        for target in page.evaluate(
            "[...new Set([...document.querySelectorAll('main a[href^=\"#\"], nav a')].map((a) => a.hash))]"
        )[:40]:
            page.evaluate("(hash) => { location.hash = hash; }", target)
            page.wait_for_function("(id) => document.getElementById(id).checkVisibility()", arg=target[1:])


def test_a_link_to_a_finding_scrolls_to_it(visit):
    with visit("nan_feature") as page:
        page.locator("#why a[href='#CKD401-1']").first.click()
        box = page.locator("#CKD401-1").bounding_box()
        assert 0 <= box["y"] < 800


def column(page: Page, number: int) -> list[str]:
    return page.evaluate(
        "(n) => [...document.getElementById('tensors').tBodies[0].rows].map((r) => r.cells[n].textContent.trim())",
        number,
    )


def test_sorting_goes_up_down_and_back(visit):
    with visit("exploding_rnn") as page:
        before = column(page, 4)
        head = page.locator("#tensors thead th").nth(4)
        button = head.locator("button")
        numbers = sorted(int(v.replace(",", "")) for v in before)
        button.click()
        assert ("ascending", [f"{n:,}" for n in numbers]) == (head.get_attribute("aria-sort"), column(page, 4))
        button.click()
        assert ("descending", [f"{n:,}" for n in reversed(numbers)]) == (
            head.get_attribute("aria-sort"),
            column(page, 4),
        )
        button.click()
        assert (None, before) == (head.get_attribute("aria-sort"), column(page, 4))


def test_numbers_sort_as_numbers_and_absent_ones_last(visit):
    with visit("float16_overflow") as page:
        page.locator("#tensors thead th").nth(6).locator("button").click()
        shown = [v.split(" ")[0] for v in column(page, 6)]
        present = [float(v) for v in shown if v != "–"]
        assert sorted(present) == present
        assert ["–"] * (len(shown) - len(present)) == shown[len(present) :]


def test_sorting_works_from_the_keyboard(visit):
    with visit("exploding_rnn") as page:
        page.locator("#tensors thead button").first.focus()
        page.keyboard.press("Enter")
        assert page.locator("#tensors thead th").first.get_attribute("aria-sort") == "ascending"


def test_filtering_by_words_and_by_state(visit):
    with visit("float16_overflow") as page:
        tools = page.locator("[data-filter=tensors]")
        rows = page.locator("#tensors tbody tr:visible")
        total = rows.count()
        tools.locator("input[type=search]").fill("BLOCK3 kernel")
        assert rows.count() == 3
        assert f"3 of {total}" == tools.locator("output").inner_text()
        tools.locator("input[type=search]").fill("")
        tools.locator("input[type=checkbox]").check()
        assert {"bad"} == set(
            page.evaluate("[...document.querySelectorAll('#tensors tbody tr:not([hidden])')].map((r) => r.className)")
        )
        tools.locator("input[type=checkbox]").uncheck()
        assert total == rows.count()


def copied(page: Page) -> str:
    """What lies on the clipboard, asked for by pasting, as a reader would."""
    page.evaluate(
        "() => { const a = document.createElement('textarea'); a.id = 'paste'; document.body.prepend(a); a.focus(); }"
    )
    page.keyboard.press("Control+V")
    return page.locator("#paste").input_value()


def test_copying_code(visit):
    with visit("nan_feature") as page:
        page.locator("#now button.copy").click()
        page.wait_for_function("document.querySelector('#now button.copy').textContent === 'Copied'")
        assert copied(page) == "mask = np.isfinite(x).all(axis=1)\nx, y = x[mask], y[mask]"


def test_copying_as_markdown(visit):
    with visit("nan_feature") as page:
        page.get_by_role("button", name="Copy as Markdown").click()
        page.wait_for_function("document.querySelector('.masthead button').textContent === 'Copied'")
        assert render(ALL["nan_feature"](), "markdown").strip() == copied(page).strip()


def test_hostile_names_are_text_and_nothing_runs(visit):
    with visit("hostile") as page:
        shown = page.locator("main").inner_text()
        assert HOSTILE[0] in shown
        assert page.locator("script").count() == 1
        assert page.locator("main img, main b:has(img), i:not([class])").count() == 0


def test_without_scripts_everything_is_there(visit):
    with visit("nan_feature", scripts=False) as page:
        for words in (
            "Input feature 2 holds a NaN",
            "without row 5 of batch 0",
            "CKD401-1",
            "runs/nan_feature/training_log.csv",
        ):
            assert page.get_by_text(words).first.is_visible()
        assert page.locator("button:visible").count() == 0
        page.locator("summary", has_text="This report as Markdown").click()
        assert page.locator("#markdown-text").is_visible()


def test_the_policy_stops_injected_code(chrome, folder):
    text = (folder / "nan_feature.html").read_text(encoding="utf-8")
    page = chrome.new_page()
    injected = "<img src=x onerror='document.title=1'><script>document.title = 2</script><p id=i style='color: rgb(1, 2, 3)'>x</p>"
    page.set_content(text.replace("</main>", injected + "</main>"))
    assert page.title().startswith("Sick")
    assert page.evaluate("getComputedStyle(document.getElementById('i')).color") != "rgb(1, 2, 3)"
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_both_schemes_are_designed(visit, scheme):
    with visit("nan_feature", scheme=scheme) as page:
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert {"light": "rgb(252, 252, 250)", "dark": "rgb(20, 21, 23)"}[scheme] == ground


def test_the_skip_link_leads_past_the_contents(visit):
    with visit("nan_feature") as page:
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Skip to the report"
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "main"


def test_a_missing_browser_is_told_in_a_sentence(monkeypatch):
    monkeypatch.delenv("CKPTDOCTOR_CHROMIUM", raising=False)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(RuntimeError, match="apt-get install chromium"):
        executable()
