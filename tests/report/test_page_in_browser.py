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
from videogym.report import write_report
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
    ) -> Any:
        path = episodes if isinstance(episodes, Path) else tmp_path / "report é.html"
        if not isinstance(episodes, Path):
            write_report(Traces(episodes, 0), path, Traces(compare, 0) if compare else None)
        context = browser.new_context(
            offline=True, color_scheme=scheme, viewport={"width": width, "height": 1000}
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said(message.text, refusals))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append(dialog.message))
        page.on("requestfinished", lambda request: asked(request))
        page.on("requestfailed", lambda request: asked(request))
        page.goto(path.as_uri() + address)
        return page

    def said(text: str, refusals: bool) -> None:
        if not (refusals and "Content Security Policy" in text):
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
    assert page.evaluate("[...document.images].every(image => image.naturalWidth === 128)")


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
