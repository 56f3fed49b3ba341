"""The page in a real browser. Without Chromium these tests say so and are left out; `.ci/run` installs it."""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest
from browsing import chromium  # noqa: F401  (a fixture)
from page_actions import ask, asked, at, begin, choose, page, photo, pointing, said, system  # noqa: F401  (some are fixtures)
from serving import assistant, serving

from minigpt4.engine.streaming import TextStream
from minigpt4.serve.settings import Allowed

pytestmark = pytest.mark.browser


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


def test_a_photo_is_taken_with_the_camera(page, at):
    begin(page, at)
    page.click("#camera")
    page.wait_for_function("() => video.videoWidth > 0")
    page.click("#shoot")
    page.locator("#shown").wait_for()
    assert page.evaluate("() => shown.naturalWidth") > 0
    assert page.evaluate("() => video.srcObject.active") is False, "the camera is off again"


def test_an_answer_without_places_says_so_where_places_were_asked_for(page, at, monkeypatch):
    monkeypatch.setattr(TextStream, "_decode", lambda self, ids: "a dog near a cat" if ids else "")
    begin(page, at, photo())
    ask(page)
    assert page.locator(".nowhere").count() == 0
    choose(page, "grounding")
    page.click("#send")
    page.locator(".nowhere", has_text="no place in the photo").wait_for()


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
