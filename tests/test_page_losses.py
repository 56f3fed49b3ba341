"""Nothing that was typed, chosen or answered is lost on the page, in a real browser."""

import copy
import json

import pytest
from browsing import chromium  # noqa: F401  (a fixture)
from page_actions import ask, asked, at, begin, choose, page, photo, pointing, system, talking_slowly  # noqa: F401
from serving import wait_until

pytestmark = pytest.mark.browser


def slowly_read(page):
    """Photos that the server must read for the browser wait until what this gives is called."""
    held = []
    page.route("**/v1/images/convert", lambda route: held.append(route))

    def go():
        for route in held:
            route.continue_()
        held.clear()

    return go


TIFF = photo("green", name="slow.tiff", kind="TIFF")


def test_a_question_waits_for_its_photo(page, at):
    bodies = asked(page)
    begin(page, at)
    go_on = slowly_read(page)
    page.set_input_files("#files", TIFF)
    page.locator("#note", has_text="slow.tiff").wait_for()
    page.fill("#question", "what is this?")
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")  # who does not trust it asks twice
    page.locator("#note", has_text="is being read; the question goes off with it").wait_for()
    assert page.input_value("#question") == "what is this?"
    assert not bodies
    go_on()
    page.locator(".assistant .time:not(:empty)").wait_for()
    (body,) = bodies
    assert [part["type"] for part in body["messages"][0]["content"]] == ["image_url", "text"]
    page.faults.clear()


def test_a_question_does_not_go_off_without_a_photo_that_cannot_be_read(page, at):
    bodies = asked(page)
    begin(page, at)
    go_on = slowly_read(page)
    broken = {"name": "broken.heic", "mimeType": "image/heic", "buffer": b"no photo at all"}
    page.set_input_files("#files", [broken, photo()])
    page.locator("#note", has_text="broken.heic").wait_for()
    page.fill("#question", "what is this?")
    page.keyboard.press("Enter")
    go_on()
    page.locator("#shown").wait_for()
    page.locator("#note.bad", has_text="broken.heic").wait_for()
    assert page.input_value("#question") == "what is this?"
    assert not bodies
    page.faults.clear()  # the browser notes the server's status 400


def test_a_photo_goes_into_the_conversation_that_it_was_chosen_for(page, at):
    begin(page, at, photo("red"), photo("blue"))
    ask(page, "two photos")
    page.click("#new")
    go_on = slowly_read(page)
    page.set_input_files("#files", TIFF)
    page.locator("#note", has_text="slow.tiff").wait_for()
    page.locator("#conversations .open", has_text="two photos").click()
    page.locator("#thumbs button").first.click()
    go_on()
    page.locator("#conversations .open").nth(1).wait_for()  # the other conversation is kept now
    assert page.locator("#thumbs button").count() == 2
    assert page.locator("#thumbs button").first.get_attribute("aria-current") == "true"
    page.locator("#conversations .open", has_text="New conversation").click()
    page.locator("#shown").wait_for()
    page.locator("#thumbs").wait_for(state="hidden")
    page.faults.clear()


def test_what_is_typed_into_an_edit_stays_while_an_answer_comes(page, at):
    begin(page, at, photo())
    ask(page, "one")
    page.get_by_text("Edit", exact=True).click()
    page.locator(".edit textarea").fill("another one")
    ask(page, "two", answers=2)
    assert page.locator(".edit textarea").input_value() == "another one"
    page.click("#new")
    page.locator("#conversations .open", has_text="one").click()
    assert page.locator(".edit textarea").input_value() == "another one"
    page.locator(".edit").get_by_text("Ask", exact=True).click()
    page.locator(".user .bubble", has_text="another one").wait_for()


def test_an_edit_is_refused_what_the_line_is_refused(page, at):
    bodies = asked(page)
    begin(page, at, photo())
    choose(page, "caption")
    page.click("#send")
    page.locator(".assistant .time:not(:empty)").wait_for()
    page.get_by_text("Edit", exact=True).click()
    page.locator(".edit textarea").fill("in one sentence")
    page.keyboard.press("Enter")
    page.locator("#note.bad", has_text="Describe takes no words").wait_for()
    page.locator(".edit").get_by_text("Cancel").click()
    choose(page, "refer")
    ask(page, "the dog", answers=2)
    page.get_by_text("Edit", exact=True).nth(1).click()
    page.locator(".edit textarea").fill(" ")
    page.locator(".edit").get_by_text("Ask", exact=True).click()
    page.locator("#note.bad", has_text="type a question first").wait_for()
    page.locator(".edit textarea").fill("inu")
    page.evaluate(
        """() => document.querySelector(".edit textarea").dispatchEvent(
        new KeyboardEvent("keydown", { key: "Enter", isComposing: true, bubbles: true, cancelable: true }))"""
    )
    page.wait_for_timeout(300)
    assert page.locator(".edit textarea").input_value() == "inu", "Enter within an input method chooses a word"
    assert len(bodies) == 2
    page.locator(".edit textarea").press("Enter")
    page.locator(".user .bubble", has_text="inu").wait_for()
    page.locator(".assistant .time:not(:empty)").nth(1).wait_for()
    assert bodies[2]["messages"][-1]["content"][-1]["text"].endswith("inu")


def test_an_edit_waits_for_the_answer_that_is_being_written(page, monkeypatch):
    with talking_slowly(monkeypatch, 120) as (_, at):
        bodies = asked(page)
        begin(page, at, photo())
        page.fill("#question", "one")
        page.keyboard.press("Enter")
        page.locator(".assistant .time:not(:empty)").wait_for()
        page.get_by_text("Edit", exact=True).click()
        page.fill("#question", "two")
        page.click("#send")
        page.locator(".user .bubble", has_text="two").wait_for()
        page.locator(".edit textarea").fill("uno")
        page.keyboard.press("Enter")
        page.locator("#note.bad", has_text="an answer is being written").wait_for()
        assert len(bodies) == 2
        page.click("#stop")
        page.locator("#send").wait_for()
        page.locator(".edit textarea").press("Enter")
        page.locator(".user .bubble", has_text="uno").wait_for()
        page.close()


def test_a_failure_in_the_middle_leaves_what_was_said(page, at):
    begin(page, at, photo())
    half = 'data: {"choices": [{"delta": {"content": "half an answer"}}]}\n\n'  # and no end
    page.route("**/chat/completions", lambda route: route.fulfill(content_type="text/event-stream", body=half))
    page.fill("#question", "hm?")
    page.keyboard.press("Enter")
    page.locator(".problem", has_text="the connection broke before the answer ended").wait_for()
    assert page.locator(".assistant .bubble").inner_text().startswith("half an answer\n")
    page.reload()
    page.locator(".problem").wait_for()
    assert page.locator(".assistant .bubble").inner_text().startswith("half an answer\n")
    page.unroute("**/chat/completions")
    page.route("**/chat/completions", lambda route: route.fulfill(status=500, body="no JSON"))
    page.get_by_text("Again", exact=True).click()
    page.locator(".problem", has_text="status 500").wait_for()
    assert page.locator(".assistant .bubble").inner_text() == "the server answered with status 500"
    page.faults.clear()  # the browser notes the status


def test_a_box_is_about_the_photo_that_it_was_drawn_on(page, at, pointing):
    bodies = asked(page)
    begin(page, at, photo("red"), photo("blue", name="blue.png"))
    thumbs = page.locator("#thumbs button")
    thumbs.nth(1).wait_for()

    def draw_on(which):
        thumbs.nth(which).click()
        page.locator("#draw").focus()
        page.keyboard.press("Enter")
        page.locator("#box").wait_for()

    draw_on(0)
    thumbs.nth(1).click()
    page.locator("#box").wait_for(state="hidden")
    for number, which in enumerate((0, 1, 1)):  # the last one is the last already
        draw_on(which)
        page.keyboard.press("Enter")
        page.keyboard.press("Enter")
        page.locator(".assistant .time:not(:empty)").nth(number).wait_for()
        content = bodies[number]["messages"][-1]["content"]
        urls = [part["image_url"]["url"] for part in content if part["type"] == "image_url"]
        assert len(urls) == (2, 1, 0)[number]
        assert not urls or urls[-1] == page.locator("#shown").get_attribute("src")
        page.locator("#overlay rect").nth(1).wait_for()  # the answer is drawn on it
        thumbs.nth(1 - which).click()
        assert page.locator("#overlay rect").count() == (0, 2, 2)[number]


DAMAGE = {
    "no photos": lambda c: c.update(images=[]),
    "a photo that is none": lambda c: c["images"].append(None),
    "no roots": lambda c: c.pop("roots"),
    "a root that is not there": lambda c: c["roots"].append("x"),
    "a message without a root": lambda c: c.update(roots=[]),
    "a head that is not there": lambda c: c.update(head="x"),
    "another photo shown": lambda c: c.update(shown=3),
    "no children": lambda c: c["nodes"][c["head"]].pop("children"),
    "a child that is not there": lambda c: c["nodes"][c["head"]]["children"].append("x"),
    "a ring": lambda c: c["nodes"][c["head"]]["children"].append(c["roots"][0]),
    "another parent": lambda c: c["nodes"][c["head"]].update(parent=c["head"]),
    "a message that is none": lambda c: c["nodes"].update(x=None),
    "photos that are no numbers": lambda c: c["nodes"][c["roots"][0]].update(images=["0"]),
    "a box without sides": lambda c: c["nodes"][c["head"]].update(boxes=[{"phrase": "a dog", "image": 0}]),
    "times that are none": lambda c: c["nodes"][c["head"]].update(timings={"total_ms": "long"}),
    "words that are none": lambda c: c["nodes"][c["head"]].update(error={}),
}


def test_a_damaged_conversation_is_refused_and_does_not_stop_the_page(page, at, tmp_path):
    begin(page, at, photo())
    ask(page, "first")
    with page.expect_download() as download:
        page.get_by_text("Export", exact=True).click()
    kept = json.loads(download.value.path().read_text())
    file = tmp_path / "all.json"

    def take(conversations):
        file.write_text(json.dumps(kept | {"conversations": conversations}))
        page.set_input_files("#import-file", file)

    damaged = []
    for number, (name, damage) in enumerate(DAMAGE.items()):
        damaged.append(copy.deepcopy(kept["conversations"][0]) | {"id": str(number), "title": name})
        damage(damaged[-1])
    take([*damaged, kept["conversations"][0]])
    page.locator("#note", has_text=f"1 conversation(s) taken in, {len(damaged)} refused").wait_for()
    assert page.locator("#conversations .open").all_inner_texts() == ["first", "first"]

    page.evaluate(  # what an earlier version of the page has taken in, and opened last
        """(conversation) => new Promise((done) => {
            const asked = indexedDB.open("minigpt4", 1);
            asked.onsuccess = () => {
                const change = asked.result.transaction("conversations", "readwrite");
                change.objectStore("conversations").put(conversation);
                change.oncomplete = done;
            };
            localStorage.setItem("open", conversation.id);
        })""",
        damaged[0],
    )
    page.reload()
    page.get_by_text("tiny", exact=True).wait_for()
    page.locator("#note.bad", has_text="“no photos” is damaged").wait_for()
    ask(page, "does it go on?")
    page.get_by_label("Delete no photos").click()
    page.get_by_label("Delete no photos").wait_for(state="detached")


@pytest.mark.parametrize(("given", "sampled"), [(-0.1, 0.9), (0, 0.9), (0.5, 0.5)])
def test_again_is_another_answer_where_a_seed_is_set(given, sampled, page, at):
    bodies = asked(page)
    begin(page, at, photo())
    page.click("#toggle-drawer")
    page.fill("#seed", "7")
    page.locator("#temperature").fill(str(given))
    page.click("#toggle-drawer")
    ask(page)
    for number in (2, 3):
        page.get_by_text("Again", exact=True).click()
        page.locator(".assistant").get_by_text(f"{number} / {number}").wait_for()
        page.locator(".assistant .time:not(:empty)").wait_for()
    assert [body["seed"] for body in bodies] == [7, 8, 9]
    assert [body.get("temperature", -0.1) for body in bodies] == [given, sampled, sampled]


def test_an_answer_is_copied_over_plain_http(page, at):
    page.add_init_script("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    begin(page, at, photo())
    ask(page)
    page.get_by_text("Copy", exact=True).click()
    page.locator("#note", has_text="copied").wait_for()
    page.locator("#question").press("Control+V")
    assert page.input_value("#question").strip() == page.locator(".assistant .bubble").inner_text().strip()
    page.evaluate("() => { document.execCommand = () => false }")
    page.get_by_text("Copy", exact=True).click()
    page.locator("#note.bad", has_text="copy them yourself").wait_for()


def test_text_is_dropped_and_pasted_as_text(page, at):
    begin(page, at)
    give = """([kind, place, withImage]) => {
        const data = new DataTransfer();
        data.setData("text/plain", "a cell of a table");
        if (withImage) data.items.add(new File([new Uint8Array([1])], "cell.png", { type: "image/png" }));
        const options = { bubbles: true, cancelable: true };
        const event = kind === "paste" ? new ClipboardEvent(kind, { clipboardData: data, ...options })
            : new DragEvent(kind, { dataTransfer: data, ...options });
        document.querySelector(place).dispatchEvent(event);
        return event.defaultPrevented;
    }"""
    assert not page.evaluate(give, ["dragover", "#question", False])
    assert not page.evaluate(give, ["drop", "#question", False])
    assert not page.evaluate(give, ["paste", "#question", True]), "tables are copied with an image of themselves"
    assert page.inner_text("#note") == ""
    assert page.evaluate(give, ["drop", "#drop", False]), "a link would be opened instead of the page"
    assert page.evaluate(give, ["paste", "#drop", True])
    page.locator("#note.bad", has_text="cell.png").wait_for()
    page.faults.clear()  # it is no photo


def test_a_dialogue_does_not_stay_beside_the_photo_of_another_conversation(page, monkeypatch):
    with talking_slowly(monkeypatch, 400) as (system, at):
        begin(page, at, photo())
        page.click("#tab-captioner")
        page.click("#start")
        page.locator("#rounds [data-kind]").first.wait_for()
        page.click("#new")
        assert page.locator("#rounds [data-kind]").count() == 0
        page.locator("#start").wait_for()
        wait_until(lambda: not system.engine.stats.running)
        page.wait_for_timeout(200)
        assert page.inner_text("#captioner-note") == ""
        assert page.locator("#rounds [data-kind]").count() == 0
        page.close()


def test_the_focus_stays_where_something_is_typed(page, monkeypatch):
    with talking_slowly(monkeypatch, 60) as (_, at):
        begin(page, at, photo())
        page.fill("#question", "hm?")
        page.click("#send")
        page.click("#toggle-drawer")
        page.focus("#max_tokens")
        page.locator(".assistant .time:not(:empty)").wait_for()
        page.wait_for_timeout(100)
        assert page.evaluate("() => document.activeElement.id") == "max_tokens"
        page.close()
