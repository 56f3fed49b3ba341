"""Conversations on the page, in a real browser: they grow, are edited, kept, and seen in every tab."""

import json
import re
import time

import pytest
from browsing import chromium  # noqa: F401  (a fixture)
from page_actions import ask, asked, at, begin, choose, page, photo, system, talking_slowly  # noqa: F401  (some are fixtures)
from PIL import Image, ImageDraw
from serving import as_bytes, assistant, serving, wait_until

pytestmark = pytest.mark.browser


def test_words_are_seen_growing_and_can_be_stopped(page, monkeypatch):
    with talking_slowly(monkeypatch, 400) as (system, at):
        begin(page, at, photo())
        page.fill("#question", "hm?")
        page.click("#send")
        bubble, seen = page.locator(".assistant .bubble"), set()
        wait_until(lambda: seen.add(len(bubble.inner_text()) if bubble.count() else 0) or len(seen) > 4)
        page.click("#stop")
        page.locator("#send").wait_for()
        wait_until(lambda: system.engine.stats.cancelled == 1)
        text = bubble.inner_text()
        assert text
        page.reload()  # what there was is still there
        assert page.locator(".assistant .bubble").inner_text() == text
        page.close()


def test_a_reload_in_the_middle_loses_nothing(page, monkeypatch):
    with talking_slowly(monkeypatch, 400) as (system, at):
        begin(page, at, photo())
        page.fill("#question", "what is this?")
        page.click("#send")
        wait_until(
            lambda: page.locator(".assistant .bubble").inner_text() if page.locator(".assistant .bubble").count() else ""
        )
        time.sleep(1)  # the page saves at most every 0.7 seconds
        page.reload()
        assert page.locator(".user .bubble").inner_text() == "what is this?"
        assert page.locator(".assistant .bubble").inner_text()
        assert page.locator("#shown").is_visible()
        wait_until(lambda: system.engine.stats.cancelled == 1)
        page.close()


def test_edit_again_and_branch_keep_what_was(page, at):
    bodies = asked(page)
    begin(page, at, photo())
    ask(page, "first")
    page.get_by_text("Edit", exact=True).click()
    page.locator(".edit textarea").fill("second")
    page.keyboard.press("Enter")
    page.get_by_text("2 / 2").first.wait_for()
    page.locator(".assistant .time:not(:empty)").wait_for()
    assert page.locator(".user .bubble").inner_text() == "second"
    assert len(bodies[1]["messages"]) == 1
    assert len(bodies[1]["messages"][0]["content"]) == 2, "with its photo"
    page.get_by_label("The version before").first.click()
    assert page.locator(".user .bubble").inner_text() == "first"
    page.get_by_text("Again", exact=True).click()
    page.locator(".assistant").get_by_text("2 / 2").wait_for()
    page.locator(".assistant .time:not(:empty)").wait_for()
    assert bodies[2]["temperature"] > 0
    page.get_by_text("Branch", exact=True).click()
    page.locator("#conversations li").nth(1).wait_for()  # a branch is kept before it is shown
    ask(page, "on", answers=2)
    assert len(bodies[3]["messages"]) == 3
    page.locator("#conversations").get_by_text("first", exact=True).click()
    page.locator(".assistant").nth(1).wait_for(state="detached")
    assert page.locator(".assistant").count() == 1


def test_conversations_survive_export_and_import(page, at, tmp_path):
    begin(page, at, photo("blue"))
    ask(page, "what is blue?")
    with page.expect_download() as download:
        page.get_by_text("Export", exact=True).click()
    file = tmp_path / "all.json"
    download.value.save_as(file)
    (kept,) = json.loads(file.read_text())["conversations"]
    assert kept["images"][0]["url"].startswith("data:image/jpeg")
    page.get_by_label("Delete what is blue?").click()
    page.locator("#conversations li").wait_for(state="detached")
    page.set_input_files("#import-file", file)
    page.locator("#conversations .open").click()
    assert page.locator(".user .bubble").inner_text() == "what is blue?"
    assert page.locator("#shown").is_visible()
    bad = tmp_path / "bad.json"
    bad.write_text("{")
    page.set_input_files("#import-file", bad)
    page.get_by_text("this file is not JSON").wait_for()
    kept["images"][0]["url"] = "https://elsewhere.example/track.gif"
    bad.write_text(json.dumps({"format": "minigpt4-conversations-1", "conversations": [kept]}))
    page.set_input_files("#import-file", bad)
    page.get_by_text("1 refused").wait_for()


def test_two_tabs_see_the_same_conversations(page, at):
    begin(page, at, photo())
    other = page.context.new_page()
    begin(other, at)
    ask(page, "from the first tab")
    other.locator("#conversations .open", has_text="from the first tab").click()
    other.locator(".user .bubble", has_text="from the first tab").wait_for()
    other.close()


def test_two_tabs_that_ask_at_the_same_time_lose_nothing(page, monkeypatch):
    with talking_slowly(monkeypatch, 60) as (_, at):
        begin(page, at, photo())
        page.wait_for_function("() => document.querySelectorAll('#conversations .open').length === 1")
        other = page.context.new_page()
        other.add_init_script("delete window.BroadcastChannel")  # it learns of the first one's question too late
        begin(other, at)
        other.locator("#shown").wait_for()
        for tab, text in ((page, "from the first"), (other, "from the second")):
            tab.fill("#question", text)
            tab.click("#send")
        for tab in (page, other):
            tab.locator(".assistant .time:not(:empty)").wait_for()
        page.reload()
        seen = {page.locator(".user .bubble").inner_text()}
        page.get_by_label(re.compile("The (version before|next version)")).and_(page.locator(":enabled")).click()
        page.locator(".assistant .time:not(:empty)").wait_for()
        seen.add(page.locator(".user .bubble").inner_text())
        assert seen == {"from the first", "from the second"}
        other.close()
        page.close()


def test_a_tab_waits_for_the_answer_that_another_is_given(page, monkeypatch):
    with talking_slowly(monkeypatch, 200) as (_, at):
        begin(page, at, photo())
        page.locator("#conversations .open").wait_for()
        other = page.context.new_page()
        begin(other, at)
        page.fill("#question", "from the first")
        page.click("#send")
        other.locator(".assistant .bubble").wait_for()
        other.fill("#question", "from the second")
        other.click("#send")
        other.get_by_text("another tab is being answered here").wait_for()
        page.click("#stop")
        other.get_by_text("Again", exact=True).wait_for()
        other.click("#send")
        other.locator(".user .bubble", has_text="from the second").wait_for()
        other.close()
        page.close()


def test_what_is_missing_is_said_before_anything_is_sent(page, at):
    bodies = asked(page)
    begin(page, at)
    choose(page, "refer")
    page.click("#send")
    page.get_by_text("this needs a photo").wait_for()
    page.set_input_files("#files", photo())
    page.locator("#shown").wait_for()
    choose(page, "identify")
    page.click("#send")
    page.get_by_text("draw a box on the photo first").wait_for()
    assert not bodies


def test_what_a_task_does_not_take_is_said_and_not_left_out(page, at):
    """A box was shown as asked about and not sent; so were words; and "$&" in a phrase became something else."""
    bodies = asked(page)
    begin(page, at, photo())
    frame = page.locator("#frame").bounding_box()
    page.mouse.move(frame["x"] + 20, frame["y"] + 20)
    page.mouse.down()
    page.mouse.move(frame["x"] + 80, frame["y"] + 60, steps=3)
    page.mouse.up()
    page.locator("#clear-box").wait_for()
    choose(page, "refer")
    page.fill("#question", "the $& and $$")
    page.click("#send")
    page.locator("#note.bad", has_text="Refer takes no box: remove it, or choose Ask or Identify").wait_for()
    choose(page, "identify")
    page.click("#send")
    page.locator("#note.bad", has_text="Identify takes no words: empty the line, or choose Ask").wait_for()
    assert not bodies
    choose(page, "refer")
    page.click("#clear-box")
    page.click("#send")
    page.locator(".assistant .time:not(:empty)").wait_for()
    assert bodies[0]["messages"][0]["content"][-1]["text"].endswith("the $& and $$")


def test_a_conversation_that_is_deleted_while_it_is_answered_stays_away(page, monkeypatch):
    with talking_slowly(monkeypatch, 400) as (system, at):
        begin(page, at, photo())
        page.fill("#question", "what is this?")
        page.click("#send")
        wait_until(lambda: page.locator(".assistant .bubble").count() and page.locator(".assistant .bubble").inner_text())
        page.locator("[aria-label^=Delete]").first.click()
        wait_until(lambda: system.engine.stats.cancelled == 1)
        page.locator("#send").wait_for()
        page.reload()
        page.locator("#send").wait_for()
        assert page.get_by_text("what is this?").count() == 0
        page.close()


def test_several_photos_belong_to_the_question_after_them(page, at):
    bodies = asked(page)
    begin(page, at, photo("red"), photo("blue"))
    page.locator("#thumbs button").nth(1).wait_for()
    ask(page)
    assert [part["type"] for part in bodies[0]["messages"][0]["content"]] == ["image_url", "image_url", "text"]


def test_settings_go_along(page, at):
    bodies = asked(page)
    begin(page, at, photo())
    page.click("#toggle-drawer")
    page.fill("#max_tokens", "3")
    page.fill("#seed", "7")
    page.locator("#temperature").fill("0.5")
    page.click("#toggle-drawer")
    ask(page)
    assert {name: bodies[0][name] for name in ("max_tokens", "seed", "temperature")} == {
        "max_tokens": 3,
        "seed": 7,
        "temperature": 0.5,
    }
    assert page.get_by_text("cut at its longest").is_visible()


def test_a_dialogue_is_seen_round_by_round_and_summed_up(page, at):
    begin(page, at)
    page.click("#tab-captioner")
    page.get_by_text("A caption by dialogue").wait_for()
    page.click("#start")
    page.locator("#captioner-note.bad", has_text="needs a photo").wait_for()
    page.set_input_files("#files", [photo()])
    page.locator("#shown").wait_for()
    page.fill("#most-rounds", "3")
    page.click("#start")
    page.locator("#captioner-note", has_text="ended:").wait_for(timeout=60_000)
    kinds = [e.get_attribute("data-kind") or "summary" for e in page.locator("#rounds li").all()]
    assert kinds == ["question", "answer"] * ((len(kinds) - 1) // 2) + ["summary"]
    assert 3 <= len(kinds) <= 7
    assert "Please describe this image in detail." in page.locator("#rounds li").first.inner_text()
    page.locator("#tab-captioner").focus()
    page.keyboard.press("ArrowLeft")
    assert page.locator("#question").is_visible()
    assert page.locator("#rounds").is_hidden()


def test_a_dialogue_can_be_stopped(page, monkeypatch):
    with talking_slowly(monkeypatch) as (system, at):
        begin(page, at, photo())
        page.click("#tab-captioner")
        page.click("#start")
        wait_until(lambda: system.engine.stats.running)
        page.click("#stop-dialogue")
        page.locator("#captioner-note", has_text="stopped").wait_for()
        wait_until(lambda: not system.engine.stats.running)
        page.locator("#start").wait_for()
        page.close()


def test_a_key_is_asked_for_and_used(page, tmp_path):
    from minigpt4.serve.keys import Keys, add_key

    key = add_key(tmp_path / "keys", "ann")
    with serving(assistant(), page=True, keys=Keys.read(tmp_path / "keys")) as at:
        page.goto(at)
        page.get_by_text("an API key is needed").wait_for()
        page.fill("#key", key)
        page.keyboard.press("Tab")
        page.get_by_text("tiny", exact=True).wait_for()
        page.click("#toggle-drawer")
        page.faults.clear()  # the browser notes the status 401
        ask(page)
        assert page.evaluate("() => JSON.stringify(localStorage).includes('mg4-')") is False
        page.close()


def test_the_photo_that_is_shown_is_the_one_that_is_asked_about(page, at):
    """What goes to the server is what was chosen, upright and in its own colors."""
    drawn = Image.new("RGB", (60, 40), "white")
    ImageDraw.Draw(drawn).rectangle((0, 0, 29, 39), fill=(200, 10, 10))
    bodies = asked(page)
    begin(page, at, {"name": "p.png", "mimeType": "image/png", "buffer": as_bytes(drawn)})
    ask(page)
    from minigpt4.serve.images import read_image
    from minigpt4.serve.settings import Allowed

    sent = read_image(bodies[0]["messages"][0]["content"][0]["image_url"]["url"], Allowed())
    assert sent.size == (60, 40)
    assert max(abs(a - b) for a, b in zip(sent.getpixel((10, 20)), (200, 10, 10), strict=True)) < 25
    assert min(sent.getpixel((50, 20))) > 240
