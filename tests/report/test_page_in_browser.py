"""What a person sees and does: the page in a real Chromium, without a network."""

# ruff: noqa: D103

import io
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from zoo import ADDRESS, HOSTILE, TASK, UNICODE, played, zoo

from videogym import Answer, Crop
from videogym.report import parts, write_report
from videogym.traces import Trace, Traces
from videogym.video import FrameStore

pytestmark = pytest.mark.browser
EVIDENCE = {"light": (46, 158, 91), "dark": (67, 199, 122)}
TURN_1 = {"light": (196, 61, 80), "dark": (240, 122, 138)}
Open = Callable[..., Any]


@pytest.fixture
def visit(browser: Any, tmp_path: Path) -> Iterator[Open]:
    """Write episodes as a page and open it offline; what goes wrong in it, or leaves it, fails the test."""
    contexts, complaints = [], []

    def visit(
        episodes: tuple[Trace, ...] | Path,
        compare: tuple[Trace, ...] = (),
        *,
        scheme: str = "light",
        width: int = 1440,
        address: str = "",
        refusals: bool = False,
        missing: bool = False,
    ) -> Any:
        path = episodes if isinstance(episodes, Path) else tmp_path / "report é.html"
        if not isinstance(episodes, Path):
            write_report(Traces(episodes, 0), path, Traces(compare, 0) if compare else None)
        context = browser.new_context(
            offline=True, color_scheme=scheme, viewport={"width": width, "height": 1000}
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said(message.text, refusals, missing))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append(dialog.message))
        page.on("requestfinished", lambda request: asked(request))
        page.on("requestfailed", lambda request: asked(request))
        page.goto(path.as_uri() + address)
        return page

    def said(text: str, refusals: bool, missing: bool) -> None:
        expected = (refusals and "Content Security Policy" in text) or (missing and "NOT_FOUND" in text)
        if not expected:
            complaints.append(text)

    def asked(request: Any) -> None:
        ours = request.url.startswith(("file:///", "data:image/jpeg;base64,"))
        if not ours and request.failure != "csp":  # else it was refused before anything was sent
            complaints.append(f"{request.url} {request.failure}")

    yield visit
    for context in contexts:
        context.close()
    assert complaints == []


def numbers(page: Any) -> list[int]:
    """Numbers of the episodes that are shown, from top to bottom."""
    return [
        int(article.get_attribute("data-number"))
        for article in page.locator("article").all()
        if article.is_visible()
    ]


def settle(page: Any) -> None:
    """Wait until what a reset has put off is done."""
    page.evaluate("new Promise((done) => setTimeout(done))")


def pixels(element: Any) -> NDArray[np.int16]:
    return np.asarray(Image.open(io.BytesIO(element.screenshot())).convert("RGB"), dtype=np.int16)


def columns(image: NDArray[np.int16], colour: tuple[int, int, int]) -> NDArray[np.intp]:
    """Columns in which a colour is seen."""
    return np.flatnonzero((np.abs(image - np.array(colour)).max(axis=-1) < 12).any(axis=0))


# --- what is seen --------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_evidence_and_looks_are_seen_where_they_are(visit: Open, scheme: str) -> None:
    """Of 600 s: evidence from 300 to 330, the first look from 270 to 360, the second refused."""
    page = visit((played(Crop(270, 360), Crop(120, 9), Crop(-60, 90), Answer("B")),), scheme=scheme)
    names = page.locator(".lane-name").all_inner_texts()
    assert names == ["evidence", "skim", "1 crop", "2 refused", "3 refused", "4 answer"]
    lanes = page.locator(".lane").all()
    shots = [pixels(lane) for lane in lanes]
    width = shots[0].shape[1]
    evidence, look = columns(shots[0], EVIDENCE[scheme]), columns(shots[2], TURN_1[scheme])
    assert evidence.min() == pytest.approx(0.5 * width, abs=2)
    assert evidence.max() == pytest.approx(0.55 * width, abs=2)
    assert look.min() == pytest.approx(0.45 * width, abs=2)
    assert look.max() == pytest.approx(0.6 * width, abs=2)
    # Only there; and a refused look is an outline, where it lies in the video.
    assert not len(columns(shots[2], EVIDENCE[scheme])) and not len(columns(shots[3], TURN_1[scheme]))
    middle = shots[4][shots[4].shape[0] // 2]
    outline = shots[4][:, int(0.15 * width) - 1]
    assert np.abs(middle[int(0.07 * width)] - middle[int(0.5 * width)]).max() < 12
    assert np.abs(outline - middle[int(0.5 * width)]).max() > 40
    # The skim is evenly spread: a line in every thirty-first of the width.
    skim = pixels(lanes[1])
    dark = np.abs(skim[10] - skim[10, int(width * 0.5 / 31)]).max(axis=-1) > 25
    assert all(dark[max(0, int(width * i / 31) - 2) : int(width * i / 31) + 3].any() for i in range(32))


def test_pictures_are_those_of_the_video(visit: Open) -> None:
    page = visit((played(Crop(300, 330), Answer("B")),))
    images = page.locator(".strip.tone1 img")
    assert images.count() == 8
    shown = pixels(images.first)
    (frame,) = FrameStore().frames(ADDRESS, [300.0], size=(128, 72)).pixels
    middle = shown[20:-20, 30:-30].mean(axis=(0, 1))
    assert np.abs(middle - frame[17:-17, 30:-30].mean(axis=(0, 1))).max() < 12
    assert page.locator(".strip.tone1 figcaption").first.inner_text() == "5:00.0"
    # Loaded when they are needed, and whole.
    assert page.evaluate("[...document.images].every(image => image.naturalWidth === 256)")


def test_a_person_finds_what_an_episode_came_to(visit: Open) -> None:
    page = visit(zoo()[:1])
    body = page.locator(".body").inner_text()
    for said in (
        "Which flag?",
        "+1.316",
        "answered",
        "300 to 330 s",
        "The end must be after the start",
        "B",
    ):
        assert said in body
    assert page.locator(".options em").all_inner_texts() == ["right", "given"]
    table = page.locator(".rewards tr").all_inner_texts()
    assert [row.split() for row in table[:2]] == [
        ["turn", "coverage", "answer", "gate", "paid", "so", "far"],
        ["1", "+0.175", "–", "–", "+0.175", "+0.175"],
    ]
    lane = page.locator(".lanes")
    box = lane.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 30)
    assert page.locator(".cursor").inner_text() == "5:00 · 300.0 s"
    assert (
        page.locator(".lane .block").nth(1).get_attribute("title").startswith("turn 1: crop 280 to 320 s")
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_can_be_read(visit: Open, scheme: str) -> None:
    """Contrast of 4.5, as WCAG asks of text, for every colour of text that the page has."""
    page = visit(zoo(), scheme=scheme)
    page.click("#open")
    found = page.evaluate(
        """() => {
            const back = (node) => {
                for (; node; node = node.parentElement) {
                    const colour = getComputedStyle(node).backgroundColor;
                    if (/^rgb\\(/.test(colour)) return colour;
                }
            };
            const pairs = {};
            for (const node of document.querySelectorAll("body *")) {
                const text = [...node.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
                const silent = node.closest("script, style, noscript, select");
                if (!text || silent || !node.checkVisibility()) continue;
                pairs[getComputedStyle(node).color + " on " + back(node)] = node.outerHTML.slice(0, 80);
            }
            return pairs;
        }"""
    )
    assert len(found) >= 12
    poor = {pair: where for pair, where in found.items() if contrast(*pair.split(" on ")) < 4.5}
    assert not poor


def contrast(one: str, other: str) -> float:
    """Ratio of relative luminances, as WCAG 2 defines it."""

    def luminance(colour: str) -> float:
        channels = np.array([float(part) for part in colour[4:-1].split(",")]) / 255
        linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("width", [1440, 900, 480])
def test_nothing_sticks_out_of_the_window(visit: Open, width: int) -> None:
    page = visit(zoo(), tuple(replace(trace, run="other") for trace in zoo()), width=width)
    for _ in range(2):
        page.click("#open")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.click("button[type=reset]")


# --- what is harmless ------------------------------------------------------------------------------


def test_hostile_texts_are_shown_as_they_are(visit: Open) -> None:
    page = visit(zoo())
    page.click("#open")
    page.wait_for_timeout(100)
    assert page.title() == "videogym report"
    article = page.locator("article").nth(2)
    article.locator("h2").scroll_into_view_if_needed()  # what is far away is not laid out
    page.wait_for_function("() => document.querySelectorAll('article h2')[2].innerText")
    assert article.locator("h2").inner_text() == HOSTILE
    assert article.locator("pre").inner_text() == HOSTILE
    assert article.locator(".name").first.text_content() == HOSTILE
    assert article.locator("script, img[src=x], pre b").count() == 0
    # What follows a text that runs from right to left is not turned round.
    option = article.locator("li").nth(1)
    assert (
        "日本語" in UNICODE
        and "日本語" in option.inner_text()
        and option.locator("em").inner_text() == "right"
    )


def test_what_gets_past_the_escaping_does_not_run(visit: Open, tmp_path: Path) -> None:
    path = tmp_path / "holed.html"
    write_report(Traces((played(Answer("B")),), 0), path)
    hole = "<script>document.title='pwned'</script><img src=x onerror=\"document.title='pwned'\">"
    hole += (
        "<a href=\"javascript:document.title='pwned'\" id=link>x</a><img src='https://example.com/x.png'>"
    )
    path.write_text(path.read_text().replace('<h2 dir="auto">', f"<h2>{hole}"))
    page = visit(path, refusals=True)
    page.evaluate("document.querySelector('h2 #link').click()")
    page.wait_for_timeout(200)
    assert page.title() == "videogym report"


# --- what is done ----------------------------------------------------------------------------------


def test_filters(visit: Open) -> None:
    """Every filter by itself, against what the zoo holds; then two at once, and none."""
    page = visit((*zoo(), played(Answer("B"), run="other", recipe="LONGVT/paper")))
    everything = list(range(1, 14))
    assert numbers(page) == everything
    assert page.inner_text("#count") == "13 of 13 shown, 2 right"
    for name, value, expected in (
        ("verdict", "right", [1, 13]),
        ("verdict", "silent", [5]),
        ("verdict", "unjudged", [8]),
        ("run", "other", [13]),
        ("recipe", page.locator("[name=recipe] option").nth(2).get_attribute("value"), [13]),
        ("ending", "turn limit", [5]),
        ("ending", "fault", [11]),
        ("turns", "refused", [1, 2, 3, 5, 6]),
        ("turns", "fault", [11]),
        ("turns", "executed", [4, 7, 8, 9, 10, 11, 12, 13]),
    ):
        page.select_option(f"[name={name}]", value)
        assert numbers(page) == expected, (name, value)
        page.select_option(f"[name={name}]", "")
    page.fill("[name=low]", "0.5")
    assert numbers(page) == [1, 13]
    page.fill("[name=high]", "1.35")
    assert numbers(page) == [1]
    page.fill("[name=low]", "")
    page.fill("[name=high]", "0")
    assert numbers(page) == list(range(2, 13))
    page.fill("[name=high]", "")
    for text, expected in (("日本語", [2, 3]), ("ONERROR=", [3]), ("never answered", [5]), ("%", [3])):
        page.fill("[name=text]", text)
        assert numbers(page) == expected, text
    page.select_option("[name=verdict]", "right")
    assert numbers(page) == [] and page.locator("#nothing").is_visible()
    page.click("button[type=reset]")
    settle(page)
    assert numbers(page) == everything


def test_sorting(visit: Open) -> None:
    episodes = (
        played(Crop(100, 130), Answer("B"), task_id="task-10"),
        played(Crop(300, 330), Answer("B"), task_id="task-2"),
        played(Answer("A"), task_id="task-1", evidence=None),
    )
    page = visit(episodes)
    for order, expected in (
        ("reward", [2, 1, 3]),
        ("-reward", [3, 1, 2]),
        ("tiou", [2, 1, 3]),
        ("-tiou", [1, 2, 3]),  # without evidence it is unknown and last
        ("task", [3, 2, 1]),
        ("turns", [1, 2, 3]),
        ("", [1, 2, 3]),
    ):
        page.select_option("[name=sort]", order)
        assert numbers(page) == expected, order


def run(name: str, right: str) -> tuple[Trace, ...]:
    """Seven tasks, answered rightly where there is a 1 and not played where there is a dot."""
    return tuple(
        played(Answer("B" if mark == "1" else "A"), run=name, task_id=f"task {i}")
        for i, mark in enumerate(right)
        if mark != "."
    )


def test_two_runs_stand_side_by_side(visit: Open) -> None:
    """One task only left right, five only right, one in neither, one in one run: p = 2 * 7 / 64."""
    page = visit(run("before", "10000001"), run("after", "0111110."))
    said = page.inner_text("#contest")
    assert said == (
        "right in both 0 · in before only 1 · in after only 5 · in neither 1 · "
        "played by one only, or not judged 1 · sign test p = 0.219"
    )
    pairs = page.locator(".pair")
    assert pairs.count() == 8 and page.locator(".nobody").count() == 1
    first = pairs.first.locator("article").all()
    assert [article.get_attribute("data-run") for article in first] == ["before", "after"]
    boxes = [article.bounding_box() for article in first]
    assert boxes[0]["y"] == boxes[1]["y"] and boxes[0]["x"] + boxes[0]["width"] <= boxes[1]["x"]
    for which, expected in (("left", 1), ("right", 5), ("unlike", 6), ("both", 0), ("neither", 1)):
        page.select_option("[name=pairs]", which)
        assert pairs.count() == expected, which
    page.select_option("[name=pairs]", "unlike")
    # A pair stays together: one of its episodes fits.
    page.select_option("[name=verdict]", "right")
    assert pairs.count() == 6
    # What stands side by side opens side by side.
    pairs.first.locator("summary").first.click()
    assert pairs.first.locator("details[open]").count() == 2
    page.click("button[type=reset]")
    settle(page)
    assert numbers(page) == list(range(1, 16)) and page.locator("#contest").is_hidden()


def test_episodes_of_a_group_are_paired_in_order(visit: Open) -> None:
    left = tuple(played(Answer(a), run="l") for a in "ABA")
    page = visit((*left, *(played(Answer(a), run="r") for a in "BB")), address="#left=l&right=r")
    pairs = [
        [a.get_attribute("data-number") for a in pair.locator("article").all()]
        for pair in page.locator(".pair").all()
    ]
    assert pairs == [["1", "4"], ["2", "5"], ["3"]]


def test_the_address_keeps_what_was_chosen(visit: Open) -> None:
    page = visit(zoo())
    page.fill("[name=text]", "日本語 &=#")
    page.fill("[name=text]", "日本語")
    page.select_option("[name=sort]", "-reward")
    kept = page.url
    assert "#" in kept and numbers(page) == [2, 3]
    page.goto("about:blank")
    page.goto(kept)
    assert numbers(page) == [2, 3] and page.input_value("[name=sort]") == "-reward"


def test_a_hostile_address_does_nothing(visit: Open) -> None:
    page = visit(
        zoo()[:2],
        address="#text=<img src=x onerror=alert(1)>&run=nobody&elements=1&length=2&sort=constructor",
    )
    assert page.inner_text("#count").endswith("right") and page.title() == "videogym report"


def test_a_name_of_a_task_is_no_key(visit: Open) -> None:
    """Names that mean something in the page's own language."""
    names = ("__proto__", "constructor", "toString", "1 __proto__")
    left = tuple(played(Answer("B"), run="l", task_id=name) for name in names)
    page = visit(left, tuple(replace(trace, run="r") for trace in left))
    assert page.locator(".pair").count() == 4 and page.locator(".nobody").count() == 0
    assert TASK.task_id not in names


# --- a frame, enlarged ---------------------------------------------------------------------------


def test_a_frame_is_enlarged_by_pointer_and_by_keyboard(visit: Open) -> None:
    """Twelve frames of one episode; the arrows go through them, Escape goes back to where one was."""
    page = visit((played(Crop(300, 330), Answer("B")),))
    assert page.locator("dialog").is_hidden()
    page.locator(".picture").nth(4).click()
    assert page.locator("dialog").is_visible()
    assert page.inner_text("#where") == "frame of turn 1 at 300 s · 5 of 12"
    large, small = page.locator("dialog img"), page.locator(".picture img").nth(4)
    assert large.bounding_box()["width"] > 4 * small.bounding_box()["width"]
    assert large.get_attribute("src") == small.get_attribute("src")
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#where").endswith("6 of 12")
    page.keyboard.press("Home")
    assert page.inner_text("#where") == "frame of the skim at 0 s · 1 of 12"
    assert page.locator("#earlier").is_disabled()
    page.keyboard.press("Escape")
    assert page.locator("dialog").is_hidden()
    assert page.evaluate("document.activeElement.className") == "picture"
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.inner_text("#where").endswith("6 of 12")
    page.locator("dialog .shut").click()
    assert page.locator("dialog").is_hidden()
    # A click beside the picture puts it away too.
    page.locator(".picture").first.click()
    page.mouse.click(3, 3)
    assert page.locator("dialog").is_hidden()


@pytest.mark.parametrize("width", [1440, 390])
def test_upright_frames_are_as_large_as_lying_ones(visit: Open, width: int) -> None:
    upright = "synthetic:brief_event?level=0&duration_s=600&seed=2&size=180x320"
    page = visit((played(Answer("B"), video=upright),), width=width)
    box = page.locator(".picture img").first.bounding_box()
    assert box["width"] >= 88 and box["height"] == pytest.approx(box["width"] * 16 / 9, rel=0.1)


# --- what the marks mean, and names ----------------------------------------------------------------


def test_the_legend_has_the_colours_that_it_explains(visit: Open) -> None:
    page = visit((played(Crop(280, 320), Crop(9, 3), Answer("B")),))
    legend = page.locator(".legend")
    for said in ("right", "wrong", "no answer", "evidence", "skim", "refused", "taken back", "not 0"):
        assert said in legend.inner_text()
    colour = "(element) => getComputedStyle(element).backgroundColor"
    for sample, mark in (
        (".legend .block.evidence", ".lane .block.evidence"),
        (".legend .badge.tone1", ".turn .badge.tone1"),
    ):
        assert page.locator(sample).first.evaluate(colour) == page.locator(mark).first.evaluate(colour)
    assert visit(zoo(), width=390).locator(".legend ul").is_hidden()  # a tap away where room is short


@pytest.mark.parametrize("width", [1440, 390])
def test_the_whole_name_of_a_task_can_be_read(visit: Open, width: int) -> None:
    name, run = "a-long-name-of-a-task/" * 6, "a run with a long name, " * 4
    page = visit((played(Answer("B"), task_id=name, run=run), *zoo()), width=width)
    for row in (page.locator("article").first.locator("summary"), page.locator(".runs tbody tr").first):
        cut = row.evaluate(
            """(row) => [...row.querySelectorAll("*")]
                 .filter((one) => one.scrollWidth > one.clientWidth + 1
                     && getComputedStyle(one).overflow !== "visible" && !one.title)
                 .map((one) => one.className)"""
        )
        assert cut == []
    shown = page.locator("article").first.locator(".id").inner_text().replace("\n", "")
    assert name.strip() in shown and run.strip() in shown
    assert page.locator("article .question").first.get_attribute("title") == "Which flag?"


def test_filters_leave_room_on_a_phone(visit: Open) -> None:
    page = visit(zoo(), width=390)
    assert page.locator("#filters").bounding_box()["height"] < 150
    page.click("#fold")
    page.select_option("[name=verdict]", "right")
    assert numbers(page) == [1]


# --- more episodes than one page holds -------------------------------------------------------------


@pytest.fixture
def large(visit: Open, monkeypatch: pytest.MonkeyPatch) -> Open:
    """As `visit`, with ten episodes as the most of a page and four as those of a file."""
    monkeypatch.setattr(parts, "MOST_EPISODES", 10)
    monkeypatch.setattr(parts, "PART_EPISODES", 4)

    def large(*arguments: Any, **options: Any) -> Any:
        page = visit(*arguments, **options)
        loaded(page)
        return page

    return large


def loaded(page: Any) -> None:
    """Wait until what was asked for is shown."""
    page.wait_for_selector("#episodes:not([aria-busy])", state="attached")


def spread(count: int, run: str = "zoo") -> tuple[Trace, ...]:
    """Episodes that cost little to play; every third is right, and rewards differ."""
    right, wrong = played(Crop(280, 320), Answer("B"), run=run), played(Answer("A"), run=run)
    return tuple(
        replace(trace, task=replace(trace.task, task_id=f"task {i}", question=f"Question {i}?"))
        for i, trace in ((i, right if i % 3 == 0 else wrong) for i in range(count))
    )


def test_a_large_report_is_turned_over_and_searched(large: Open) -> None:
    page = large(spread(120))
    assert page.inner_text("#count") == "120 of 120 shown, 40 right"
    assert numbers(page) == list(range(1, 51)) and page.inner_text("#pages") == "of 3"
    page.click("#after")
    loaded(page)
    assert numbers(page) == list(range(51, 101))
    page.fill("[name=page]", "3")
    loaded(page)
    assert numbers(page) == list(range(101, 121)) and page.locator("#after").is_disabled()
    # What is found is found among all, and begins on its first page.
    page.fill("[name=text]", "question 77?")
    loaded(page)
    assert numbers(page) == [78] and page.inner_text("#count") == "1 of 120 shown, 0 right"
    page.fill("[name=text]", "#120")
    loaded(page)
    assert numbers(page) == [120]
    page.fill("[name=text]", "")
    page.select_option("[name=verdict]", "right")
    page.select_option("[name=sort]", "-reward")
    loaded(page)
    assert numbers(page) == list(range(1, 121, 3)) and page.inner_text("#pages") == "of 1"
    page.select_option("[name=verdict]", "")
    page.select_option("[name=sort]", "reward")
    loaded(page)
    assert numbers(page) == [*range(1, 121, 3), *(n for n in range(1, 31) if n % 3 != 1)][:50]
    # The address keeps the page that one was on.
    page.click("#after")
    loaded(page)
    kept, there = page.url, numbers(page)
    page.goto("about:blank")
    page.goto(kept)
    loaded(page)
    assert numbers(page) == there and "page=2" in kept


def test_episodes_of_a_large_report_are_whole(large: Open) -> None:
    """Hostile texts, and pictures that come when they are asked for."""
    page = large((*zoo(), *spread(5)))
    assert page.locator("img").count() == len(page.locator("img[data-picture]").all())
    article = page.locator("article").nth(2)
    article.locator("summary").click()
    article.locator("h2").scroll_into_view_if_needed()
    assert article.locator("h2").inner_text() == HOSTILE and page.title() == "videogym report"
    assert article.locator("script, img[src=x], pre b").count() == 0
    picture = article.locator(".picture img").first
    page.wait_for_function("(image) => image.naturalWidth === 256", arg=picture.element_handle())
    picture.click()
    assert page.locator("dialog img").is_visible()


def test_two_large_runs_stand_side_by_side(large: Open) -> None:
    """Of 60 tasks both get the 20 of every third right, in the other run one is missing."""
    page = large(spread(60), tuple(replace(t, run="other") for t in spread(60)[1:]))
    assert page.inner_text("#contest").startswith("right in both 19 · in zoo only 0 · in other only 0")
    assert page.locator(".pair").count() == 50 and page.inner_text("#pages") == "of 2"
    first = page.locator(".pair").nth(1).locator("article").all()
    assert [one.get_attribute("data-number") for one in first] == ["2", "61"]


def test_a_large_report_without_its_folder_says_so(
    visit: Open, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(parts, "MOST_EPISODES", 3)
    write_report(Traces(spread(5), 0), tmp_path / "r.html", thumbnails=0)
    alone = tmp_path / "sent" / "r.html"
    alone.parent.mkdir()
    (tmp_path / "r.html").rename(alone)
    page = visit(alone, missing=True)
    page.wait_for_selector("#trouble:not([hidden])")
    assert "Keep the folder beside this page" in page.inner_text("#trouble")
