"""The page as a person uses it, in a real Chromium."""

# ruff: noqa: D103

import io
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from videogym import Crop, Region, Segment, Task, VideoQAEnv
from videogym.play import Game, PlayServer
from videogym.traces import RecordTraces, read_traces

pytestmark = pytest.mark.browser
ADDRESS = "synthetic:brief_event?level=0&duration_s=600&seed=1"
TASK = Task("flag", ADDRESS, "Which flag?", "choice", ("red", "blue"), "B", (Segment(300, 330),))
HOSTILE = (
    "</script><script>document.title='pwned'</script></title></textarea></style>--><img src=x "
    "onerror=\"document.title='pwned'\"><b>bold</b> &amp; &lt; 'single' \"double\" `back` ${7} \x00\x1b[31m"
)
EVIDENCE = {"light": (46, 158, 91), "dark": (67, 199, 122)}
Open = Callable[..., Any]


@pytest.fixture
def visit(browser: Any, tmp_path: Path) -> Iterator[Open]:
    """Serve a game and open its page; what goes wrong in it, or asks elsewhere, fails the test."""
    ended, complaints = [], []

    def visit(
        tasks: Any = (TASK,),
        recipe: str = "DEFAULT",
        *,
        scheme: str = "light",
        width: int = 1440,
        failing: str = "no request",
    ) -> Any:
        env = RecordTraces(VideoQAEnv(tasks, recipe), tmp_path / "t.jsonl")
        server = PlayServer(Game(env))
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 1000})
        ended.append((context, server, env))
        page = context.new_page()
        page.on("console", lambda message: said(message.text, failing))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: asked(request, server))
        page.goto(server.address)
        page.wait_for_selector(".frames img")
        return page

    def said(text: str, failing: str) -> None:
        if f"responded with a status of {failing}" not in text:
            complaints.append(text)

    def asked(request: Any, server: PlayServer) -> None:
        if not request.url.startswith(server.address):
            complaints.append(request.url)

    yield visit
    for context, server, env in ended:
        context.close()
        server.shutdown()
        server.server_close()
        env.close()
    assert complaints == []


def expect(locator: Any) -> Any:
    """Playwright's, imported where there is one."""
    from playwright.sync_api import expect

    return expect(locator)


def drag(page: Any, element: Any, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Press, move and let go, between two places in shares of an element."""
    box = element.bounding_box()
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in (start, end)]
    page.mouse.move(*places[0])
    page.mouse.down()
    page.mouse.move(*places[1], steps=5)
    page.mouse.up()


def selected(page: Any) -> tuple[float, float]:
    return float(page.input_value("#from")), float(page.input_value("#to"))


def pixels(element: Any) -> NDArray[np.int16]:
    return np.asarray(Image.open(io.BytesIO(element.screenshot())).convert("RGB"), dtype=np.int16)


def view(page: Any) -> Any:
    """What the server tells of the episode."""
    return page.evaluate("fetch('episode').then((reply) => reply.json())")


def look(page: Any, turn: int) -> None:
    """Press the button and wait for what comes of it."""
    page.locator("#kinds button").click()
    page.locator(f"#turns li:nth-child({turn})").wait_for()


def test_an_episode_from_the_first_look_to_the_evidence(visit: Open, tmp_path: Path) -> None:
    task = replace(TASK, evidence_region=Region(0.25, 0.25, 0.5, 0.75))
    page = visit([task])
    assert page.inner_text("#question") == "Which flag?"
    assert page.inner_text("#limits") == "turn 1 of 6 · 32 frames seen, 64 left"
    assert page.locator(".option").all_inner_texts() == ["A. red", "B. blue"]
    drag(page, page.locator("#lanes"), (0.45, 0.5), (0.6, 0.5))
    assert selected(page) == pytest.approx((270, 360), abs=1.5)
    drag(page, page.locator("#stage"), (0.1, 0.2), (0.6, 0.8))
    page.fill("#thought", "The flag must be here.")
    look(page, 1)
    expect(page.locator(".strip")).to_have_count(2)
    assert page.inner_text("#limits") == "turn 2 of 6 · 48 frames seen, 48 left"
    assert page.input_value("#thought") == "" and page.locator("#box").is_hidden()
    page.locator(".option").nth(1).click()
    page.click("#give")
    page.wait_for_selector("#outcome .verdict")
    assert page.inner_text("#outcome .verdict") == "right"
    assert page.locator(".option.right em").inner_text() == "right, your answer"
    assert "300 to 330 s" in page.inner_text("#outcome dl")
    rows = page.locator("#outcome tbody tr").all_inner_texts()
    assert len(rows) == 3 and rows[1].split("\t")[2] == "+1"
    (trace,) = read_traces(tmp_path / "t.jsonl").episodes
    (crop,) = trace.turns[0].turn.results
    assert isinstance(crop.action, Crop)
    assert crop.action.region == pytest.approx((0.1, 0.2, 0.6, 0.8), abs=0.01)
    assert "The flag must be here." in trace.turns[0].turn.text and trace.correct
    assert trace.reward == pytest.approx(float(rows[2].split("\t")[-1]), abs=1e-3)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_evidence_is_seen_at_the_end_and_not_before(visit: Open, scheme: str) -> None:
    """Of 600 s it fills 300 to 330, so half to 55 per cent of the timeline, in green."""
    page = visit(scheme=scheme)
    lanes, green = page.locator("#lanes"), np.array(EVIDENCE[scheme])

    def share_of_green() -> NDArray[np.float64]:
        """How near to the colour of evidence each column is, on a line without marks."""
        line = pixels(lanes)[-6]
        ground = line[5]
        way = green - ground
        return (line - ground) @ way / (way @ way)

    page.mouse.move(0, 0)
    assert share_of_green().max() < 0.1
    page.locator(".option").first.click()
    page.click("#give")
    page.wait_for_selector("#outcome .verdict")
    page.mouse.move(0, 0)
    columns = np.flatnonzero(share_of_green() > 0.3)
    width = lanes.bounding_box()["width"]
    assert columns.min() == pytest.approx(0.5 * width, abs=2)
    assert columns.max() == pytest.approx(0.55 * width, abs=2)
    assert page.inner_text("#outcome .verdict") == "wrong"


def test_a_refusal_is_shown_with_its_reason(visit: Open) -> None:
    page = visit()
    page.fill("#from", "50")
    page.fill("#to", "20")
    look(page, 1)
    assert page.inner_text("#refusal") == "Refused. The end must be after the start, got 50 to 20 s."
    assert "refused: The end must be after the start" in page.inner_text("#turns")
    assert page.inner_text("#limits").startswith("turn 2 of 6")


def test_hostile_texts_are_shown_as_texts(visit: Open) -> None:
    task = replace(TASK, task_id=HOSTILE, question=HOSTILE, options=(HOSTILE, "blue"))
    page = visit([task])
    shown = HOSTILE.replace("\x00", "␀").replace("\x1b", "␛")
    assert page.inner_text("#question") == shown
    assert page.locator(".option").first.inner_text() == f"A. {shown}"
    page.fill("#thought", HOSTILE)
    drag(page, page.locator("#lanes"), (0.2, 0.5), (0.3, 0.5))
    look(page, 1)
    page.locator(".option").nth(1).click()
    page.click("#give")
    page.wait_for_selector("#outcome .verdict")
    assert shown in page.inner_text("#outcome dl")
    page.locator("details").click()
    assert any("onerror=" in text for text in page.locator("pre").all_inner_texts())
    assert page.title() == "videogym play" and page.locator("b:text('bold')").count() == 0


def test_tags_in_a_thought_are_refused_and_the_thought_is_kept(visit: Open) -> None:
    page = visit(recipe="LONGVT_TINY", failing="400")
    drag(page, page.locator("#lanes"), (0.2, 0.5), (0.3, 0.5))
    page.fill("#thought", "it is </think> here")
    page.locator("#kinds button").click()
    expect(page.locator("#problem")).to_contain_text("Leave tags out of the thought")
    assert page.input_value("#thought") == "it is </think> here" and page.locator("#turns li").count() == 0
    page.fill("#thought", "it is here")
    look(page, 1)
    assert page.locator("#problem").is_hidden()


def test_a_click_on_a_frame_shows_it_and_selects_around_it(visit: Open) -> None:
    """32 frames over 600 s at 8 a second lie 19.25 or 19.375 s apart."""
    page = visit()
    page.locator(".frames button").nth(10).click()
    times = view(page)["clips"][0]["times_s"]
    assert selected(page) == pytest.approx((times[9], times[11]), abs=0.006)
    assert page.get_attribute("#shown", "src") == "frames/1/0/10.jpg"
    assert page.locator(".frames button.now").count() == 1
    # A click on the timeline goes to the nearest frame, and changes no selection.
    before = selected(page)
    box = page.locator("#lanes").bounding_box()
    page.mouse.click(box["x"] + 0.5 * box["width"], box["y"] + 20)
    nearest = int(np.abs(np.array(times) - 300).argmin())
    assert page.get_attribute("#shown", "src") == f"frames/1/0/{nearest}.jpg" and selected(page) == before


def test_edges_are_dragged_and_zoom_makes_them_fine(visit: Open) -> None:
    page = visit()
    lanes = page.locator("#lanes")
    drag(page, lanes, (0.5, 0.5), (0.6, 0.5))
    drag(page, lanes, (0.6, 0.5), (0.8, 0.5))
    assert selected(page) == pytest.approx((300, 480), abs=2)
    drag(page, lanes, (0.5, 0.5), (0.7, 0.5))
    assert selected(page) == pytest.approx((420, 480), abs=2)
    page.click("#closer")
    # Now a pixel is an eighth of a second: the timeline goes from 390 to 510 s.
    drag(page, lanes, (0.1, 0.5), (0.2, 0.5))
    assert selected(page) == pytest.approx((402, 414), abs=1)
    labels = page.locator("#axis i").all_inner_texts()
    assert labels[0] in ("6:30", "6:45") and labels[-1] == "8:30"
    page.click("#all")
    assert page.locator("#axis i").all_inner_texts()[-1] == "10:00"
    box = lanes.bounding_box()
    page.mouse.move(box["x"] + 0.25 * box["width"], box["y"] + 10)
    page.mouse.wheel(0, -500)
    expect(page.locator("#axis i").first).not_to_have_text("0:00")


def test_a_region_of_a_region_is_a_part_of_the_whole_picture(visit: Open, tmp_path: Path) -> None:
    """Half of the picture, then half of what that shows: a quarter."""
    page = visit()
    for turn in (1, 2):
        drag(page, page.locator("#lanes"), (0.1 * turn, 0.5), (0.1 * turn + 0.05, 0.5))
        drag(page, page.locator("#stage"), (0.5, 0.5), (0.999, 0.999))
        look(page, turn)
        expect(page.locator("#shown")).to_have_attribute("src", f"frames/1/{turn}/0.jpg")
    regions = [clip["region"] for clip in view(page)["clips"]]
    assert regions[1] == pytest.approx([0.5, 0.5, 1, 1], abs=0.01)
    assert regions[2] == pytest.approx([0.75, 0.75, 1, 1], abs=0.01)


def test_a_recipe_without_regions_takes_none(visit: Open) -> None:
    page = visit(recipe="LONGVT_TINY")
    drag(page, page.locator("#stage"), (0.1, 0.2), (0.6, 0.8))
    assert page.locator("#box").is_hidden() and page.locator("#whole").is_hidden()


def test_candidate_frames_are_marked_and_counted(visit: Open) -> None:
    """128 candidates over 600 s: about 21 in 100 s, of which a look shows 8."""
    page = visit(recipe="VIDEO_MTR/paper")
    assert page.locator("#marks .pool").count() == 128
    page.fill("#from", "0")
    page.fill("#to", "20")
    assert page.inner_text("#brings") == "20 s, about 5 frames"
    page.fill("#to", "100")
    assert page.inner_text("#brings") == "100 s, about 8 frames"
    look(page, 1)
    expect(page.locator(".strip")).to_have_count(2)
    assert page.locator(".strip").first.locator("img").count() == 8


def test_two_windows_do_not_play_one_turn_twice(visit: Open) -> None:
    page = visit(failing="409")
    other = page.context.new_page()
    other.goto(page.url)
    other.wait_for_selector(".frames img")
    for one in (page, other):
        drag(one, one.locator("#lanes"), (0.2, 0.5), (0.3, 0.5))
    look(page, 1)
    other.locator("#kinds button").click()
    other.wait_for_selector("#problem:not([hidden])")
    assert "in another window" in other.inner_text("#problem")
    assert other.locator("#turns li").count() == 1


def test_the_next_question_and_open_answers(visit: Open, tmp_path: Path) -> None:
    number = Task("count", ADDRESS, "How many?", "numeric", answer="3")
    page = visit([TASK, number])
    page.on("dialog", lambda dialog: dialog.accept())
    drag(page, page.locator("#lanes"), (0.2, 0.5), (0.3, 0.5))
    look(page, 1)
    page.click("#next")
    expect(page.locator("#question")).to_have_text("How many?")
    assert page.inner_text("#position") == "question 2 of 2" and page.locator("#turns li").count() == 0
    page.click("#give")
    assert page.inner_text("#problem") == "Write an answer first."
    page.fill("#text", "three")
    page.keyboard.press("Enter")
    page.locator("#turns li").wait_for()
    assert page.inner_text("#refusal") == "Refused. Answer with a number."
    page.fill("#text", "3")
    page.click("#give")
    page.wait_for_selector("#outcome .verdict")
    assert page.inner_text("#outcome .verdict") == "right"
    assert "not annotated" in page.inner_text("#outcome dl")
    traces = read_traces(tmp_path / "t.jsonl").episodes
    assert [(trace.task.task_id, trace.cut) for trace in traces] == [("flag", "left"), ("count", "")]


def test_it_fits_a_narrow_window(visit: Open) -> None:
    page = visit(width=420)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_server_that_is_gone_is_said_to_be_so(visit: Open, browser: Any) -> None:
    env = VideoQAEnv([TASK])
    server = PlayServer(Game(env))
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    context = browser.new_context()
    page = context.new_page()
    page.goto(server.address)
    page.wait_for_selector(".frames img")
    server.shutdown()
    server.server_close()
    page.locator(".option").first.click()
    # A line that is open would still be answered.
    page.evaluate("() => { window.fetch = () => Promise.reject(new Error('gone')); }")
    page.click("#give")
    page.wait_for_selector("#problem:not([hidden])")
    assert "does not answer" in page.inner_text("#problem")
    context.close()
    env.close()


# --- without a pointer, and on a phone -----------------------------------------------------------


@pytest.mark.parametrize("width", [390, 800])
def test_the_question_is_in_sight_on_a_narrow_screen(visit: Open, width: int) -> None:
    """Above the frames when the page opens, and still there when one has scrolled down to them."""
    page = visit(width=width)
    question = page.locator("#question").bounding_box()
    assert question["y"] + question["height"] < page.locator("#stage").bounding_box()["y"]
    page.locator(".frames button").last.scroll_into_view_if_needed()
    page.mouse.wheel(0, 2000)
    page.wait_for_function("() => scrollY > 100")
    assert 0 <= page.locator("#question").bounding_box()["y"] < 120


def test_a_question_that_is_long_leaves_room(visit: Open) -> None:
    page = visit([replace(TASK, question="Which flag is it? " * 200)], width=390)
    assert page.locator("#ask").bounding_box()["height"] <= 0.33 * 1000


def test_an_episode_by_keys_alone(visit: Open, tmp_path: Path) -> None:
    """Arrows select 285 to 315 s and move and lengthen it by 6 s each, Enter looks, B and Enter answer."""
    page = visit()
    assert "Enter" in page.inner_text("#keys") and page.inner_text("#due-action") == "nothing yet"
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowRight")
    assert selected(page) == (285, 315)
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+ArrowRight")
    assert selected(page) == (291, 327)
    page.keyboard.press("ArrowLeft")
    assert selected(page) == (285, 321) and page.inner_text("#due-action") == "crop 285 to 321 s"
    page.keyboard.press("Enter")
    page.locator("#turns li").wait_for()
    # What was chosen before is not done again by the next press.
    expect(page.locator("#due-action")).to_have_text("nothing yet")
    page.keyboard.press("Enter")
    page.keyboard.press("b")
    assert page.locator("#options :checked").get_attribute("value") == "B"
    assert page.inner_text("#due-action") == "answer B"
    page.keyboard.press("Enter")
    page.wait_for_selector("#outcome .verdict")
    assert page.inner_text("#outcome .verdict") == "right"
    (trace,) = read_traces(tmp_path / "t.jsonl").episodes
    assert [result.action for paid in trace.turns for result in paid.turn.results][:1] == [Crop(285, 321)]
    assert len(trace.turns) == 2


def test_keys_stay_in_the_video(visit: Open) -> None:
    page = visit()
    page.locator("#lanes").focus()
    for key, expected in (("ArrowLeft", (0, 600)), ("ArrowUp", (0, 600))):
        page.keyboard.press(key)
        for _ in range(120):
            page.keyboard.press(key)
        start, end = selected(page)
        assert expected[0] <= start < end <= expected[1]
    assert selected(page)[0] == 0
    for _ in range(200):
        page.keyboard.press("Shift+ArrowLeft")
    start, end = selected(page)
    assert start < end


def test_what_is_typed_is_text(visit: Open) -> None:
    """A letter in the thought is no option, an arrow no segment; Ctrl-Enter does it from there too."""
    page = visit()
    page.locator("#thought").focus()
    page.keyboard.type("a b")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Enter")
    assert page.locator("#options :checked").count() == 0 and page.input_value("#from") == ""
    assert page.input_value("#thought") == "a \nb"
    page.locator(".option").nth(1).click()
    page.locator("#thought").focus()
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#outcome .verdict")


def test_a_strip_of_frames_is_one_stop_of_the_tab_key(visit: Open) -> None:
    """32 frames in one strip; at most a dozen and a half stops for all of the page."""
    page = visit()
    stops = page.evaluate(
        """() => [...document.querySelectorAll("a, button, input, textarea, summary, [tabindex]")]
            .filter((one) => one.tabIndex >= 0 && !one.disabled && one.checkVisibility()).length"""
    )
    assert stops <= 16
    buttons = page.locator(".frames button")
    assert buttons.count() == 32 and page.locator(".frames button[tabindex='0']").count() == 1
    buttons.first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert page.get_attribute("#shown", "src") == "frames/1/0/2.jpg"
    assert page.evaluate("document.activeElement.dataset.place") == "0 2"
    times = view(page)["clips"][0]["times_s"]
    assert selected(page) == pytest.approx((times[1], times[3]), abs=0.006)
    # Down to the picture below, and back.
    page.keyboard.press("ArrowDown")
    below = page.evaluate("document.activeElement.getBoundingClientRect().x")
    assert below == pytest.approx(buttons.nth(2).bounding_box()["x"], abs=2)
    page.keyboard.press("ArrowUp")
    assert page.evaluate("document.activeElement.dataset.place") == "0 2"
    page.keyboard.press("End")
    assert page.evaluate("document.activeElement.dataset.place") == "0 31"
    assert page.locator(".frames button[tabindex='0']").count() == 1
    # Enter looks at what the frame has selected.
    page.keyboard.press("Enter")
    page.locator("#turns li").wait_for()
