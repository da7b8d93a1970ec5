"""The page where a person may search by text, in a real Chromium."""

# ruff: noqa: D103, F811

from typing import Any

import pytest
from test_play_page import Open, drag, expect, view, visit  # noqa: F401

pytestmark = pytest.mark.browser


def due(page: Any) -> str:
    return str(page.inner_text("#due-action"))


def test_what_is_written_is_searched_for_and_a_segment_is_looked_at(visit: Open) -> None:
    page = visit(recipe="FIND")
    find, crop = page.locator("#kinds button").all()
    assert (find.inner_text(), crop.inner_text()) == ("find", "crop")
    expect(find).to_be_disabled()
    page.fill("#query", " ")
    expect(find).to_be_disabled()
    page.fill("#query", "a shape <b>")
    assert due(page) == "find a shape <b>"
    page.press("#query", "Enter")
    turn = page.locator("#turns li:nth-child(1)")
    turn.wait_for()
    assert "find “a shape <b>”, 4 frames" in turn.inner_text()
    expect(page.locator(".strip")).to_have_count(2)
    # What was written stays, and a segment that is selected afterwards is what Enter looks at.
    drag(page, page.locator("#lanes"), (0.45, 0.5), (0.6, 0.5))
    assert due(page).startswith("crop ")
    page.press("#lanes", "Enter")
    page.locator("#turns li:nth-child(2)").wait_for()
    kinds = [turn["results"][0]["kind"] for turn in view(page)["turns"]]
    assert kinds == ["find", "crop"]


def test_a_recipe_without_a_search_has_no_place_for_it(visit: Open) -> None:
    assert visit().locator("#search").is_hidden()
