"""The page at `/` in a real headless Chromium, against the gate on a real socket and a scripted engine."""

import asyncio
import os
import shutil
import threading
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright
from vllm.config import VllmConfig

from quant.fidelity_report import markdown
from server.keys import Key, KeyFile, add_key, digest_of
from server.live import INTERVAL_S
from server.page.site import FILES, POLICY
from tests.support.page_server import PageServer, page_server
from tests.support.releases import good_fidelity

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed (apt-get install chromium)")

ANSWER = "대한민국의 수도는 서울입니다. The capital is Seoul."
HOSTILE = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script> **b** &amp;'
QUESTION = "수도는 어디인가요?"
CARD = f"""---
license: apache-2.0
---

# A card

Text with `code`, **strong** words and [a link](https://example.org).

- one
  and more
- two

| task | score |
| --- | ---: |
| boolq | 0.61 |

```sh
malmoi-serve CHECKPOINT
```

{HOSTILE}
"""


@pytest.fixture(scope="module")
def released(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny checkpoint with what a release says of itself."""
    out = Path(shutil.copytree(tiny_checkpoint, tmp_path_factory.mktemp("page") / "tiny"))
    (out / "README.md").write_text(CARD)
    (out / "fidelity.md").write_text(markdown(good_fidelity()))
    return out


@pytest.fixture(scope="module")
def server(arguments: Namespace, vllm_config: VllmConfig, released: Path) -> Iterator[PageServer]:
    with page_server(arguments, vllm_config, released) as server:
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    options = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        yield browser
        browser.close()


@dataclass
class Tab:
    """A page, what its console said, and every address it asked for."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)

    def ask(self, question: str = QUESTION) -> None:
        self.page.get_by_label("Question").fill(question)
        self.page.keyboard.press("Enter")

    def wait_for_end(self) -> None:
        expect(self.page.get_by_role("button", name="Send")).to_be_visible()

    def look_again(self) -> None:
        """As when its tab is shown again: it asks the server at once."""
        self.page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")

    def answers(self) -> list[str]:
        return self.page.locator("article[data-role=assistant] .text").all_text_contents()


@contextmanager
def opened(browser: Browser, url: str, **options: Any) -> Iterator[Tab]:
    context = browser.new_context(**({"locale": "en-US"} | options))
    context.set_default_timeout(10_000)
    page = context.new_page()
    tab = Tab(page)
    page.on("console", lambda message: tab.complaints.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: tab.complaints.append(str(error)))
    page.on("request", lambda request: tab.addresses.append(request.url))
    page.goto(url)
    try:
        yield tab
    finally:
        context.close()


@pytest.fixture
def tab(browser: Browser, server: PageServer) -> Iterator[Tab]:
    """The page in English, its model known."""
    server.say(ANSWER)
    with opened(browser, server.url) as tab:
        expect(tab.page.locator("#model-name")).to_have_text("tiny")
        yield tab


def held_at(index: int) -> tuple[threading.Event, Any]:
    """An event, and what to await in front of each token: from `index` on, it waits for the event."""
    go_on = threading.Event()

    async def hold(token: int) -> None:
        while token >= index and not go_on.is_set():
            await asyncio.sleep(0.005)

    return go_on, hold


def test_answer_streams_in_and_is_measured(tab: Tab, server: PageServer) -> None:
    go_on, hold = held_at(8)
    server.say(ANSWER, hold)
    tab.ask()
    expect(tab.page.locator("article[data-role=user]")).to_have_text(f"You{QUESTION}")
    expect(tab.page.locator("article[data-role=assistant] .text")).not_to_have_text("")
    begun = tab.answers()[0]
    assert ANSWER.startswith(begun)
    assert begun != ANSWER
    expect(tab.page.locator("#load")).to_have_text("1 running · 0 waiting")
    go_on.set()
    tab.wait_for_end()
    assert tab.answers() == [ANSWER]
    expect(tab.page.locator("article[data-role=assistant] .note")).to_contain_text(f"{len(ANSWER)} characters")
    expect(tab.page.locator("#said")).to_have_text("The answer is complete.")
    assert tab.complaints == []


def test_what_a_model_writes_is_text_and_nothing_else(tab: Tab, server: PageServer) -> None:
    server.say(HOSTILE)
    tab.ask(HOSTILE)
    tab.wait_for_end()
    assert tab.answers() == [HOSTILE]
    inside = tab.page.locator("#turns :is(img, script, strong, a)")
    assert inside.count() == 0
    assert tab.page.evaluate("window.hacked") is None
    assert tab.complaints == []


def test_stop_ends_the_generation_and_keeps_what_was_written(tab: Tab, server: PageServer) -> None:
    go_on, hold = held_at(8)
    server.say(ANSWER, hold)
    tab.ask()
    expect(tab.page.locator("article[data-role=assistant] .text")).not_to_have_text("")
    tab.page.get_by_role("button", name="Stop").click()
    tab.wait_for_end()
    expect(tab.page.locator("article[data-role=assistant] .note")).to_contain_text("stopped")
    [partial] = tab.answers()
    core = server.engine.core
    stopped = core.requests[-1].request_id
    tab.page.wait_for_timeout(200)
    assert stopped in core.aborted
    go_on.set()
    server.say("네.")
    tab.ask("그리고?")
    expect(tab.page.locator("article[data-role=assistant]")).to_have_count(2)
    tab.wait_for_end()
    prompt = server.engine.renderer.get_tokenizer().decode(core.requests[-1].prompt_token_ids)
    assert [prompt.count(text) for text in (QUESTION, partial.strip(), "그리고?")] == [1, 1, 1]


def test_refusal_is_said_and_its_question_not_asked_again(tab: Tab, server: PageServer) -> None:
    tab.ask("가" * 3000)  # more than the context holds
    note = tab.page.locator(".problem .note")
    expect(note).to_contain_text("No answer: ")
    expect(note).to_contain_text("512")
    tab.ask(QUESTION)
    expect(tab.page.locator("article[data-role=assistant]")).to_have_count(2)
    tab.wait_for_end()
    assert tab.answers() == ["", ANSWER]


def test_enter_that_ends_a_syllable_does_not_send(tab: Tab, server: PageServer) -> None:
    asked = len(server.engine.core.requests)
    field = tab.page.get_by_label("Question")
    field.fill("안녕하세")
    composing = {"key": "Enter", "isComposing": True, "bubbles": True, "cancelable": True}
    field.dispatch_event("keydown", composing)
    field.press("Shift+Enter")
    assert field.input_value() == "안녕하세\n"
    assert tab.page.locator("article").count() == 0
    assert len(server.engine.core.requests) == asked


def test_everything_can_be_done_without_a_mouse(tab: Tab, server: PageServer) -> None:
    page = tab.page
    reached = []
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.tagName"))
        if reached[-1] == "BODY":
            break
    for wanted in ("A", "language", "turns", "question", "SUMMARY", "send", "svg"):
        assert wanted in reached, wanted
    assert reached.count("svg") == 5
    server.say(ANSWER, held_at(3)[1])
    page.get_by_label("Question").focus()
    page.keyboard.type(QUESTION)
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Stop")).to_be_visible()
    page.keyboard.press("Escape")
    tab.wait_for_end()
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll("button, input, textarea, svg")]
            .filter((each) => !(each.labels?.length || each.ariaLabel || each.textContent.trim()))
            .map((each) => each.outerHTML)"""
    )
    assert unnamed == []


def test_charts_show_what_the_server_measured(tab: Tab, server: PageServer) -> None:
    tab.ask()
    tab.wait_for_end()
    first_text = tab.page.get_by_role("img", name="Time to first text")
    expect(first_text.locator(":is(polyline, circle).p50").first).to_be_attached()
    now = server.metrics.live._clock()
    for ago_s, wait_s in ((INTERVAL_S, 2.0), (0.0, 4.0)):
        for _ in range(1000):  # so that one answer's own wait is not among the percentiles
            server.metrics.live.add("queue", wait_s, now - ago_s)
    queue = tab.page.locator("figure").nth(3)
    values = queue.locator("output span")
    expect(values.first).to_have_text("4 s")
    queue.get_by_role("img").focus()
    tab.page.keyboard.press("ArrowLeft")
    assert values.all_text_contents() == ["2 s"] * 3
    tab.page.keyboard.press("ArrowRight")
    assert values.all_text_contents() == ["4 s"] * 3
    tab.page.keyboard.press("Home")
    expect(queue.locator("output")).to_contain_text("−4.9 min")
    assert tab.page.locator("figure").count() == 5
    expect(tab.page.locator("#objective")).to_contain_text("100 %")


def test_model_card_and_fidelity_are_rendered_as_text(tab: Tab) -> None:
    page = tab.page
    expect(page.locator("#facts")).to_contain_text("LlamaForCausalLM")
    expect(page.locator("#fidelity table").first).to_contain_text("top-1")
    row = page.locator("#fidelity tr", has_text="Korean").first
    expect(row).to_contain_text("1.0000 → 1.0100")
    page.get_by_text("Model card").click()
    card = page.locator("#card")
    expect(card.locator("h4")).to_have_text("A card")
    assert card.locator("li").all_text_contents() == ["one and more", "two"]
    assert card.locator("td, th").all_text_contents() == ["task", "score", "boolq", "0.61"]
    assert card.locator("pre").text_content() == "malmoi-serve CHECKPOINT"
    assert card.locator("strong").all_text_contents() == ["strong", "b"]
    expect(card).to_contain_text("a link (https://example.org)")
    expect(card).to_contain_text("<script>window.hacked=1</script>")
    assert card.locator("a, img, script").count() == 0
    assert "license" not in (card.text_content() or "")
    assert page.evaluate("window.hacked") is None


def test_state_of_the_server_is_shown(tab: Tab, server: PageServer) -> None:
    state = tab.page.locator("#state")
    expect(state).to_have_text("ready")
    server.gate.is_warm = False
    try:
        tab.look_again()
        expect(state).to_have_text("warming up")
    finally:
        server.gate.is_warm = True
    tab.look_again()
    expect(state).to_have_text("ready")


def test_nothing_comes_from_elsewhere(tab: Tab, server: PageServer) -> None:
    tab.ask()
    tab.wait_for_end()
    assert tab.addresses
    assert [address for address in tab.addresses if not address.startswith(server.url)] == []
    for path in FILES:
        answer = httpx.get(server.url + path)
        assert answer.status_code == 200
        assert answer.headers["content-security-policy"] == POLICY
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "server-timing" in answer.headers
        assert httpx.head(server.url + path).content == b""
        assert httpx.post(server.url + path).status_code == 405


def test_words_are_there_in_both_languages_and_the_choice_stays(browser: Browser, server: PageServer) -> None:
    with opened(browser, server.url, locale="ko-KR") as tab:
        expect(tab.page.get_by_role("heading", name="대화")).to_be_visible()
        missing = tab.page.evaluate(
            """async () => {
                const { words, switchLanguage } = await import("/page/words.js");
                const names = (tree, path) => Object.entries(tree).flatMap(([name, value]) =>
                    typeof value === "object" ? names(value, `${path}${name}.`) : [`${path}${name}`]);
                const here = names(words(), "");
                switchLanguage();
                const there = names(words(), "");
                switchLanguage();
                const used = [...document.querySelectorAll("[data-word]")].map((each) => each.dataset.word);
                return [...here.filter((name) => !there.includes(name)),
                        ...there.filter((name) => !here.includes(name)),
                        ...used.filter((name) => !here.includes(name))];
            }"""
        )
        assert missing == []
        tab.page.get_by_role("button", name="English").click()
        expect(tab.page.get_by_role("heading", name="Chat")).to_be_visible()
        tab.page.reload()
        expect(tab.page.get_by_role("heading", name="Chat")).to_be_visible()
        assert tab.page.evaluate("document.documentElement.lang") == "en"


PHONE = {"viewport": {"width": 360, "height": 700}, "is_mobile": True, "has_touch": True}
LOOKS = [{}, {"color_scheme": "dark"}, PHONE, {**PHONE, "color_scheme": "dark", "locale": "ko-KR"}]


@pytest.mark.parametrize("look", LOOKS, ids=["light", "dark", "phone", "phone-dark"])
def test_every_look_is_legible_and_fits(
    browser: Browser, server: PageServer, tmp_path: Path, look: dict[str, Any]
) -> None:
    """Contrast of all text as WCAG 2.2 asks it of level AA: 4.5 to 1."""
    server.say(ANSWER)
    with opened(browser, server.url, **look) as tab:
        page = tab.page
        expect(page.locator("#model-name")).to_have_text("tiny")
        page.locator("#question").fill(QUESTION)
        page.keyboard.press("Enter")
        expect(page.locator("article[data-role=assistant] .note")).not_to_have_text("")
        expect(page.locator("#objective div").first).to_be_visible()
        page.locator("#card-details summary").click()
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        found = page.evaluate(CONTRASTS)
        assert len(found) > 50
        assert [each for each in found if each["ratio"] < 4.5] == []
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        is_dark = int(ground.split("(")[1].split(",")[0]) < 128
        assert is_dark == (look.get("color_scheme") == "dark")
        page.screenshot(path=tmp_path / "look.png", full_page=True)
        assert (tmp_path / "look.png").stat().st_size > 20_000
        assert tab.complaints == []


CONTRASTS = """() => {
    const channels = (color) => color.match(/[\\d.]+/g).map(Number);
    const light = (color) => channels(color).slice(0, 3)
        .map((value) => value / 255)
        .map((value) => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4)
        .reduce((sum, value, index) => sum + value * [0.2126, 0.7152, 0.0722][index], 0);
    const behind = (element) => {
        for (let each = element; each; each = each.parentElement) {
            const color = getComputedStyle(each).backgroundColor;
            if ((channels(color)[3] ?? 1) === 1) return color;
        }
        return "rgb(255, 255, 255)";
    };
    const own = (element) => [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    return [...document.body.querySelectorAll("*")].filter((each) => own(each) && each.checkVisibility())
        .map((each) => {
            const style = getComputedStyle(each);
            const ink = each instanceof SVGElement ? style.fill : style.color;
            const [darker, lighter] = [light(ink), light(behind(each))].sort((one, other) => one - other);
            return { text: each.textContent.slice(0, 40), ratio: (lighter + 0.05) / (darker + 0.05) };
        });
}"""


@pytest.fixture(scope="module")
def locked(
    arguments: Namespace, vllm_config: VllmConfig, released: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PageServer]:
    """A server with two keys, `chat` and `metrics`."""
    file = tmp_path_factory.mktemp("keys") / "keys.json"
    for name in ("chat", "metrics"):
        key = Key(
            id=name, name=name, digest=digest_of(name), metrics=name == "metrics", created=datetime.now(UTC)
        )
        add_key(file, key)
    with page_server(arguments, vllm_config, released, KeyFile(file)) as server:
        server.say(ANSWER)
        yield server


def test_key_is_asked_for_and_used(browser: Browser, locked: PageServer) -> None:
    with opened(browser, locked.url) as tab:
        page = tab.page
        field = page.get_by_label("This server asks for a key")
        expect(field).to_be_focused()
        field.fill("wrong")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_have_text("The server does not take this key.")
        field.fill("chat")
        page.keyboard.press("Enter")
        expect(page.locator("#model-name")).to_have_text("tiny")
        expect(field).to_be_hidden()
        expect(page.locator("#live-problem")).to_have_text("This key may not read the server's latencies.")
        tab.ask()
        tab.wait_for_end()
        assert tab.answers() == [ANSWER]
        page.reload()
        expect(page.locator("#model-name")).to_have_text("tiny")


def test_key_for_the_metrics_shows_the_charts(browser: Browser, locked: PageServer) -> None:
    with opened(browser, locked.url) as tab:
        tab.page.get_by_label("This server asks for a key").fill("metrics")
        tab.page.get_by_role("button", name="Use this key").click()
        expect(tab.page.locator("#objective div").first).to_be_visible()
        expect(tab.page.locator("#live-problem")).to_be_hidden()


def test_only_the_files_are_for_everyone(locked: PageServer) -> None:
    assert {httpx.get(locked.url + path).status_code for path in FILES} == {200}
    assert [httpx.get(f"{locked.url}/page/{name}").status_code for name in ("card", "live")] == [401, 401]
    statuses = {
        name: [
            httpx.get(f"{locked.url}/page/{part}", headers={"Authorization": f"Bearer {name}"}).status_code
            for part in ("card", "live")
        ]
        for name in ("chat", "metrics")
    }
    assert statuses == {"chat": [200, 403], "metrics": [200, 200]}
