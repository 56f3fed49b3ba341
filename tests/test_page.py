"""The page in a real browser. Without Chromium these tests say so and are left out; `.ci/run` installs it."""

import json
import re
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
from browsing import chromium  # noqa: F401  (a fixture)
from PIL import Image, ImageDraw
from serving import as_bytes, assistant, picture, serving
from test_serve_chat import slow, wait_until

from minigpt4.engine.streaming import TextStream
from minigpt4.serve.settings import Allowed

pytestmark = pytest.mark.browser
ANSWER = "<p>a dog</p> {<10><20><50><80>} near <p>a cat</p> {<60><60><90><90>}"


@pytest.fixture
def page(chromium):
    context = chromium.new_context(viewport={"width": 1200, "height": 760}, accept_downloads=True)
    context.set_default_timeout(10_000)
    page = context.new_page()
    page.faults = []
    page.on("pageerror", lambda error: page.faults.append(str(error)))
    page.on("console", lambda message: page.faults.append(message.text) if message.type == "error" else None)
    yield page
    context.close()
    assert not page.faults


@pytest.fixture(scope="module")
def system():
    return assistant()


@pytest.fixture(scope="module")
def at(system):
    with serving(system, page=True) as address:
        yield address


@pytest.fixture
def pointing(monkeypatch):
    """Every answer points at a dog and a cat."""
    monkeypatch.setattr(TextStream, "_decode", lambda self, ids: ANSWER if ids else "")


def photo(color="red", size=(200, 100), name="photo.png", kind="PNG"):
    return {"name": name, "mimeType": "image/png", "buffer": as_bytes(picture(color, size), kind)}


def begin(page, at, *photos):
    page.goto(at)
    page.get_by_text("tiny", exact=True).wait_for()
    if photos:
        page.set_input_files("#files", list(photos))
        page.locator("#shown").wait_for()


def choose(page, task):
    page.locator(f'#tasks input[value="{task}"]').check(force=True)


def ask(page, text="hm?", answers=1):
    page.fill("#question", text)
    page.keyboard.press("Enter")
    page.locator(".assistant .time:not(:empty)").nth(answers - 1).wait_for()


def asked(page):
    """The bodies of all questions from now on."""
    bodies = []
    page.on("request", lambda r: bodies.append(r.post_data_json) if r.url.endswith("/chat/completions") else None)
    return bodies


def said(body):
    content = body["messages"][-1]["content"]
    return content[-1]["text"]


def test_an_upload_and_a_question(page, at, system):
    bodies = asked(page)
    begin(page, at, photo())
    ask(page)
    (body,) = bodies
    assert body["stream"] is True
    assert [part["type"] for part in body["messages"][0]["content"]] == ["image_url", "text"]
    assert page.locator(".assistant .bubble").inner_text()
    assert "tokens/s" in page.locator(".assistant .time").inner_text()
    ask(page, "and?", answers=2)
    assert [len(message["content"]) for message in bodies[1]["messages"] if message["role"] == "user"] == [2, 1]
    assert len(bodies[1]["messages"]) == 3


def test_the_first_load_is_small_and_from_here_alone(page, at):
    sizes, urls = [], []
    page.on("response", lambda r: (sizes.append(len(r.body())), urls.append(r.url)))
    begin(page, at)
    assert sum(sizes) < 100_000
    assert all(url.startswith(at) for url in urls)


def test_words_are_seen_growing_and_can_be_stopped(page, monkeypatch):
    system = assistant(endless=True)
    system.model.generation_config.max_new_tokens = 400
    slow(system, monkeypatch, 0.03)
    with serving(system, page=True) as at:
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
    system = assistant(endless=True)
    system.model.generation_config.max_new_tokens = 400
    slow(system, monkeypatch, 0.03)
    with serving(system, page=True) as at:
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


def test_boxes_lie_at_the_right_pixels_and_light_up_with_their_phrases(page, at, pointing):
    begin(page, at, photo())
    choose(page, "grounding")
    page.click("#send")
    page.locator(".phrase").first.wait_for()
    frame = page.locator("#frame").bounding_box()
    rects = {rect.get_attribute("aria-label"): rect.bounding_box() for rect in page.locator("#overlay rect").all()}
    for label, (x1, y1, x2, y2) in {"a dog: ask about it": (10, 20, 50, 80), "a cat: ask about it": (60, 60, 90, 90)}.items():
        box = rects[label]
        want = (frame["x"] + frame["width"] * x1 / 100, frame["y"] + frame["height"] * y1 / 100)
        assert abs(box["x"] - want[0]) < 4
        assert abs(box["y"] - want[1]) < 4
        assert abs(box["width"] - frame["width"] * (x2 - x1) / 100) < 8
        assert abs(box["height"] - frame["height"] * (y2 - y1) / 100) < 8
    assert page.locator(".bubble .phrase").all_inner_texts() == ["a dog", "a cat"]
    assert page.locator(".assistant .bubble").inner_text().split() == "a dog near a cat".split()
    assert page.locator(".chip").count() == 0, "what is marked among the words is not said again"
    assert page.locator(".lit").count() == 0
    page.locator(".phrase", has_text="a cat").hover()
    assert {e.get_attribute("data-phrase") for e in page.locator(".lit").all()} == {"1"}
    assert page.locator("rect.lit").count() == 1
    page.mouse.move(frame["x"] + frame["width"] * 0.3, frame["y"] + frame["height"] * 0.5)
    assert page.locator(".phrase.lit").inner_text() == "a dog"


def test_a_click_on_a_box_asks_on(page, at, pointing):
    bodies = asked(page)
    begin(page, at, photo())
    choose(page, "detection")
    ask(page, "dog")
    page.locator('rect[aria-label^="a dog"]').click()
    assert page.locator('#tasks input[value="identify"]').is_checked()
    page.keyboard.press("Enter")
    page.locator(".assistant .time:not(:empty)").nth(1).wait_for()
    assert said(bodies[0]) == "[detection] dog"
    assert said(bodies[1]) == "[identify] what is this {<10><20><50><80>}"


def test_a_box_is_drawn_moved_resized_and_kept_inside(page, at):
    bodies = asked(page)
    begin(page, at, photo())
    frame = page.locator("#frame").bounding_box()

    def to(x, y):
        page.mouse.move(frame["x"] + frame["width"] * x, frame["y"] + frame["height"] * y, steps=3)

    def drag(start, end):
        to(*start)
        page.mouse.down()
        to(*end)
        page.mouse.up()

    def numbers():
        text = page.locator("#box").get_attribute("aria-valuetext")
        return [int(word.strip(",")) for word in text.split() if word.strip(",").isdecimal()]

    def near(*want):
        assert all(abs(a - b) <= 1 for a, b in zip(numbers(), want, strict=True)), numbers()

    drag((0.2, 0.3), (0.6, 0.7))
    near(20, 30, 60, 70)
    drag((0.4, 0.5), (0.5, 0.6))  # by its middle
    near(30, 40, 70, 80)
    drag((0.7, 0.8), (0.8, 0.9))  # by a corner
    near(30, 40, 80, 90)
    drag((0.5, 0.6), (1.4, 0.6))  # over the edge
    near(50, 40, 100, 90)
    for _ in range(3):
        page.keyboard.press("ArrowLeft")
    page.keyboard.press("Shift+ArrowUp")
    near(47, 40, 97, 89)
    choose(page, "identify")
    page.click("#send")
    page.locator(".assistant .time:not(:empty)").wait_for()
    box = [int(v) for v in re.findall(r"<(\d+)>", said(bodies[0]))]
    assert all(abs(a - b) <= 1 for a, b in zip(box, (47, 40, 97, 89), strict=True)), said(bodies[0])
    assert page.locator("#box").is_hidden()


def test_everything_can_be_done_with_the_keyboard(page, at):
    bodies = asked(page)
    begin(page, at, photo())
    page.locator("#draw").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")  # asks about the box
    assert page.evaluate("() => document.activeElement.id") == "question"
    page.keyboard.press("Enter")
    page.locator(".assistant .time:not(:empty)").wait_for()
    assert said(bodies[0]) == "[identify] what is this {<31><30><71><70>}"
    seen = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        seen.add(page.evaluate("() => document.activeElement.textContent.trim() || document.activeElement.ariaLabel || ''"))
    assert {"Again", "Branch", "Copy", "Edit", "Export", "Import", "Gallery", "Draw a box", "New conversation"} <= seen


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
    system = assistant(endless=True)
    system.model.generation_config.max_new_tokens = 60
    slow(system, monkeypatch, 0.03)
    with serving(system, page=True) as at:
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
    system = assistant(endless=True)
    system.model.generation_config.max_new_tokens = 200
    slow(system, monkeypatch, 0.03)
    with serving(system, page=True) as at:
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


@pytest.mark.parametrize("kind", ["TIFF", "HEIF", "AVIF", "WEBP"])
def test_photos_of_every_kind_are_shown(kind, page, at):
    if kind == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    begin(page, at, photo("green", (64, 32), f"photo.{kind.lower()}", kind))
    ask(page)
    assert page.evaluate("() => [shown.naturalWidth, shown.naturalHeight].join()") == "64,32"
    page.faults.clear()


def test_broken_and_huge_files_are_said_so(page, at):
    begin(page, at)
    page.set_input_files("#files", {"name": "broken.heic", "mimeType": "image/heic", "buffer": b"no photo at all"})
    page.locator("#note.bad", has_text="broken.heic").wait_for()
    assert page.locator("#shown").is_hidden()
    page.faults.clear()  # the browser notes the server's status 400
    page.set_input_files("#files", photo("red", (5000, 4000)))
    page.locator("#shown").wait_for()
    assert page.evaluate("() => shown.naturalWidth") == 2048, "scaled before it is sent"


def test_a_file_that_is_too_large_is_said_so(page):
    with serving(assistant(), page=True, allowed=Allowed(image_bytes=10_000)) as at:
        begin(page, at)
        page.set_input_files("#files", photo("red", (200, 200), "large.tiff", "TIFF"))  # 120 kB, and no browser reads it
        page.locator("#note.bad", has_text="large.tiff").wait_for()
        assert "10,000 bytes" in page.locator("#note").inner_text()
        assert page.locator("#shown").is_hidden()
        page.faults.clear()  # the browser notes the status
        page.set_input_files("#files", photo())
        page.locator("#shown").wait_for()
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


def test_a_website_is_shown_in_a_frame_that_reaches_nothing(page, at, monkeypatch):
    site = (
        "<html><body><h1>Jokes</h1><script>document.body.dataset.ran = 1; try { parent.document.title } catch { "
        "document.body.dataset.shut = 1 } "
        "fetch('/v1/models').catch(() => document.body.dataset.offline = 1)</script></body></html>"
    )
    monkeypatch.setattr(TextStream, "_decode", lambda self, ids: site if ids else "")
    begin(page, at, photo())
    ask(page)
    inside = page.frame_locator("iframe.site").locator("body[data-ran][data-shut][data-offline]")
    inside.wait_for()
    assert inside.locator("h1").inner_text() == "Jokes"
    page.faults.clear()  # what the frame was refused


def test_a_photo_is_dropped_and_pasted(page, at):
    begin(page, at)
    give = """(kind) => new Promise((done) => {
        const canvas = document.createElement("canvas");
        canvas.getContext("2d").fillRect(0, 0, 9, 9);
        canvas.toBlob((blob) => {
            const data = new DataTransfer();
            data.items.add(new File([blob], "x.png", { type: "image/png" }));
            const event = kind === "drop" ? new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true })
                : new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true });
            document.body.dispatchEvent(event);
            done();
        });
    })"""
    page.evaluate(give, "drop")
    page.locator("#shown").wait_for()
    page.evaluate(give, "paste")
    page.locator("#thumbs button").nth(1).wait_for()


def test_the_gallery_asks_what_the_papers_ask(page, at):
    bodies = asked(page)
    begin(page, at)
    page.click("#open-gallery")
    page.locator(".card").nth(5).wait_for()
    page.locator(".card", has_text="A website from a sketch").click()
    page.locator(".assistant .time:not(:empty)").wait_for()
    assert "HTML" in said(bodies[0])


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
    system = assistant(endless=True)
    slow(system, monkeypatch, 0.03)
    with serving(system, page=True) as at:
        begin(page, at, photo())
        page.click("#tab-captioner")
        page.click("#start")
        wait_until(lambda: system.engine.stats.running)
        page.click("#stop-dialogue")
        page.locator("#captioner-note", has_text="stopped").wait_for()
        wait_until(lambda: not system.engine.stats.running)
        page.locator("#start").wait_for()
        page.close()


def test_a_photo_is_taken_with_the_camera(page, at):
    begin(page, at)
    page.click("#camera")
    page.wait_for_function("() => video.videoWidth > 0")
    page.click("#shoot")
    page.locator("#shown").wait_for()
    assert page.evaluate("() => shown.naturalWidth") > 0
    assert page.evaluate("() => video.srcObject.active") is False, "the camera is off again"


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


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1200])
def test_nobody_is_kept_out(width, theme, page, at, pointing):
    """No serious violation of the accessibility rules that axe knows, with an answer there; nothing too wide for a phone."""
    package = find_spec("axe_playwright_python")
    if package is None:
        pytest.skip("needs axe: pip install axe-playwright-python")
    page.set_viewport_size({"width": width, "height": 780})
    page.emulate_media(color_scheme=theme)
    begin(page, at, photo())
    choose(page, "grounding")
    page.click("#send")
    page.locator(".phrase").first.wait_for()
    assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
    page.evaluate((Path(package.origin).parent / "axe.min.js").read_text())
    for control in (None, "#tab-captioner", "#toggle-drawer", "#open-gallery"):
        if control:
            page.click(control)
        found = page.evaluate("() => axe.run(document, { resultTypes: ['violations'] })")
        grave = [
            (v["id"], [node["html"][:150] for node in v["nodes"]])
            for v in found["violations"]
            if v["impact"] in ("serious", "critical")
        ]
        assert not grave, grave


def test_a_finger_scrolls_and_draws_when_it_is_told_to(chromium, at):
    context = chromium.new_context(viewport={"width": 390, "height": 780}, has_touch=True, is_mobile=True)
    page = context.new_page()
    begin(page, at, photo())
    frame = page.locator("#frame").bounding_box()
    touch = context.new_cdp_session(page)

    def swipe():
        points = [(0.2, 0.2), (0.4, 0.5), (0.6, 0.8)]
        for kind, (x, y) in zip(("touchStart", "touchMove", "touchMove"), points, strict=True):
            point = {"x": frame["x"] + frame["width"] * x, "y": frame["y"] + frame["height"] * y}
            touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [point]})
        touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})

    swipe()
    assert page.locator("#box").is_hidden()
    page.tap("#draw")
    swipe()
    page.locator("#box").wait_for()
    context.close()


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
