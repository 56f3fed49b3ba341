"""Reviewing: the log, what reviewers come to, the page's server, and the page in a real browser where there is one."""

import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
from browsing import chromium, intercepted, listening, opened, sees  # noqa: F401  (chromium is a fixture)
from PIL import Image
from serving import wait_until

from minigpt4.curate.review import Decision, Review, agreement, texts_to_review, verdict
from minigpt4.curate.review import about as judged
from minigpt4.curate.rules import flaws_of
from minigpt4.errors import UserError


def folder_of(tmp_path, count):
    image = tmp_path / "image.png"
    Image.new("RGB", (64, 48), "teal").save(image)
    rows = []
    for i in range(count):
        text = f"Picture {i} shows a boat." if i % 3 else f"Picture {i} shows a boat, a boat, a boat"
        row = {"id": f"{i:06d}", "image": str(image), "raw": f"{text} ###", "continued": f"{text} ### And more", "text": text}
        flaws = flaws_of(text, 3, 50)
        rows.append(row | {"caption": "<b>a boat</b>", "repairs": ["stray_symbols"], "flaws": flaws, "keep": not flaws})
    (tmp_path / "6_rules.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def test_decisions_are_on_disk_and_read_back(tmp_path):
    log = tmp_path / "review.jsonl"
    review = Review(log, {"a": "", "b": ""})
    review.decide("a", "ann", "accept")
    review.decide("a", "ann", "edit", " Better. ")
    review.decide("a", "bob", "reject")
    review.decide("b", "ann", "ignore")
    again = Review(log, {"a": "", "b": ""})
    assert again.of("a") == {"ann": Decision("edit", "Better."), "bob": Decision("reject")}
    assert again.codes(["a", "b"], "ann") == "ei"
    assert again.decide("a", "ann", "undo") == Decision("accept")
    assert again.decide("a", "ann", "undo") is None
    assert again.decide("a", "ann", "undo") is None  # nothing left to undo
    assert Review(log, {"a": "", "b": ""}).codes(["a", "b"], "ann") == ".i"
    data = log.read_bytes()
    log.write_bytes(data[:-5])  # a kill in the middle of a line
    assert Review(log, {"a": "", "b": ""}).codes(["a", "b"], "ann") == ".i"
    review = Review(log, {"a": ""})
    review.decide("a", "ann", "accept")
    assert Review(log, {"a": ""}).codes(["a"], "ann") == "a"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("x", "ann", "accept"), "no text 'x'"),
        (("a", "ann", "delete"), "no action 'delete'"),
        (("a", " ", "accept"), "reviewer's name"),
        (("a", "ann", "edit"), "needs its text"),
        (("a", "ann", "edit", " "), "needs its text"),
        (("a", "ann", "accept", "text"), "other actions have none"),
    ],
)
def test_what_is_no_decision_is_refused_and_not_written(tmp_path, arguments, says):
    review = Review(tmp_path / "review.jsonl", {"a": ""})
    with pytest.raises(UserError, match=says):
        review.decide(*arguments)
    assert (tmp_path / "review.jsonl").read_bytes() == b""


def test_reviewers_at_the_same_time_lose_nothing(tmp_path):
    ids = [f"{i}" for i in range(40)]
    reviews = [Review(tmp_path / "review.jsonl", dict.fromkeys(ids, "")) for _ in range(2)]  # two servers on one log

    def work(review, name):
        for id in ids:
            review.decide(id, name, "accept")

    threads = [threading.Thread(target=work, args=(reviews[i % 2], f"r{i}")) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with ThreadPoolExecutor() as pool:  # who looks while another decides waits: it was an error in the middle
        reviews[0]._lock.acquire()
        looking = pool.submit(reviews[0].of, "0")
        with pytest.raises(TimeoutError):
            looking.result(timeout=0.2)
        reviews[0]._lock.release()
        assert "r0" in looking.result()
    again = Review(tmp_path / "review.jsonl", dict.fromkeys(ids, ""))
    assert [again.codes(ids, f"r{i}") for i in range(6)] == ["a" * 40] * 6


def test_what_several_reviewers_come_to():
    accept, reject, ignore, edit = Decision("accept"), Decision("reject"), Decision("ignore"), Decision("edit", "New.")
    assert verdict({}, "Old.") == ("open", "Old.")
    assert verdict({"a": ignore}, "Old.") == ("open", "Old.")
    assert verdict({"a": accept, "b": ignore}, "Old.") == ("keep", "Old.")
    assert verdict({"a": accept, "b": edit}, "Old.") == ("keep", "New.")
    assert verdict({"a": edit, "b": Decision("edit", "Other.")}, "Old.") == ("conflict", "Old.")
    assert verdict({"a": reject, "b": ignore}, "Old.") == ("drop", "Old.")
    assert verdict({"a": reject, "b": accept}, "Old.") == ("conflict", "Old.")


def test_agreement_is_cohens_kappa(tmp_path):
    review = Review(tmp_path / "review.jsonl", dict.fromkeys("abcdefghij", ""))
    for id, one, other in zip("abcdefghij", "aaaaaarrri", "aaaarrrrra", strict=True):
        names = {"a": "accept", "r": "reject", "i": "ignore"}
        review.decide(id, "ann", names[one])
        review.decide(id, "bob", names[other])
    # of nine judged by both, seven agree; ann keeps 6/9, bob 4/9: chance is 24/81 + 15/81 = 39/81
    [row] = agreement(review)
    assert (row["both"], row["agree"]) == (9, 7 / 9)
    assert row["kappa"] == pytest.approx((7 / 9 - 39 / 81) / (1 - 39 / 81))


def test_without_texts_there_is_nothing_to_review(tmp_path):
    with pytest.raises(UserError, match="curate run"):
        texts_to_review(tmp_path)
    (tmp_path / "6_rules.jsonl").write_text('{"id": "a"}\n')
    with pytest.raises(UserError, match='no "image"'):
        texts_to_review(tmp_path)


# the server --------------------------------------------------------------------------------------------------------------

pytest.importorskip("fastapi", reason="fastapi is not installed")
HEADERS = {"x-review": "1"}


@pytest.fixture
def client(tmp_path):
    from fastapi.testclient import TestClient

    from minigpt4.curate.review_server import review_app

    return TestClient(review_app(folder_of(tmp_path, 6)), base_url="http://127.0.0.1")


def test_the_server_gives_items_and_takes_decisions(client, tmp_path):
    assert client.get("/api/state?reviewer=ann").json()["codes"] == "......"
    item = client.get("/api/items/0?reviewer=ann").json()
    assert item["id"] == "000001"  # those that passed come first
    assert item["repaired"][-1] == ["gone", "### And more"]
    flawed = client.get("/api/items/5?reviewer=ann").json()
    assert {flaw["rule"] for flaw in flawed["flaws"]} >= {"loop", "cut_ending"}
    image = client.get("/api/images/0")
    assert image.headers["content-type"] == "image/jpeg"
    body = {"index": 0, "id": item["id"], "about": item["about"], "reviewer": "ann", "action": "edit", "text": "A boat."}
    assert client.post("/api/decisions", json=body, headers=HEADERS).json() == {"mine": {"action": "edit", "text": "A boat."}}
    assert client.get("/api/state?reviewer=ann").json()["codes"] == "e....."
    assert client.get("/api/items/0?reviewer=bob").json()["others"] == {"ann": "edit"}
    assert len((tmp_path / "review.jsonl").read_text().splitlines()) == 1


def test_the_server_is_for_its_own_page_alone(client):
    body = {"index": 0, "reviewer": "ann", "action": "accept"}
    assert client.post("/api/decisions", json=body).status_code == 403  # another site's form
    assert client.get("/", headers={"host": "evil.example"}).status_code == 400  # DNS rebinding
    policy = client.get("/").headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    for path in ("/review_server.py", "/..%2freview.py", "/index.html", "/docs", "/openapi.json", "/api/items/6?reviewer=a"):
        assert client.get(path).status_code == 404, path
    item = client.get("/api/items/0?reviewer=ann").json()
    body |= {"id": item["id"], "about": item["about"]}
    for wrong in ({"index": True}, {"index": "0"}, {"reviewer": 1}, {"action": "x"}, {"text": 3}):
        assert client.post("/api/decisions", json=body | wrong, headers=HEADERS).status_code == 400, wrong
    for other in ({"index": -1}, {"index": 99}, {"index": 1}, {"id": "000009"}, {"about": "x"}, {"id": None, "about": None}):
        assert client.post("/api/decisions", json=body | other, headers=HEADERS).status_code == 409, other
    assert client.post("/api/decisions", json=body, headers=HEADERS).json()["mine"]["action"] == "accept"


def test_a_decision_reaches_the_text_that_was_on_the_page_or_none(client, tmp_path):
    """The page stays open while the recipe is run again, and the order of the texts is another one then."""
    from fastapi.testclient import TestClient

    from minigpt4.curate.review_server import review_app

    item = client.get("/api/items/0?reviewer=ann").json()
    rows = [json.loads(line) for line in (tmp_path / "6_rules.jsonl").read_text().splitlines()]
    rows = [row | {"keep": row["keep"] and row["id"] != item["id"]} for row in rows]
    (tmp_path / "6_rules.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    later = TestClient(review_app(tmp_path), base_url="http://127.0.0.1")
    assert later.get("/api/items/0?reviewer=ann").json()["id"] != item["id"]
    body = {key: item[key] for key in ("index", "id", "about")} | {"reviewer": "ann", "action": "edit", "text": "Of the first."}
    told = later.post("/api/decisions", json=body, headers=HEADERS)
    assert (told.status_code, "reload" in told.json()["error"]) == (409, True)
    assert not (tmp_path / "review.jsonl").exists() or not (tmp_path / "review.jsonl").read_text()
    assert later.get("/api/images/0").headers["cache-control"] == "no-cache"  # the next text's image has the same address


# the page ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def served(tmp_path):
    """``served(count)`` -> the address of a page with so many texts."""
    pytest.importorskip("starlette", reason="starlette is not installed")
    from minigpt4.curate.review_server import review_app

    with ExitStack() as running:
        yield lambda count: running.enter_context(listening(review_app(folder_of(tmp_path, count))))


def ready(chromium, address, name):
    page = opened(chromium, f"{address}?reviewer={name}")
    sees(page, "#raw", "Picture")
    return page


def about(page, text):
    sees(page, "#about", text)


def saved(page):
    sees(page, "#saved", "saved")
    sees(page, "#saved:not(.waiting):not(.failed)", "saved")


def test_the_page_by_keyboard_alone(chromium, served, tmp_path):
    page = ready(chromium, served(9), "ann")
    about(page, "1 of 9")
    page.keyboard.press("a")
    about(page, "2 of 9")
    page.keyboard.press("e")
    page.keyboard.press("Control+a")
    page.keyboard.type("A better text.")
    page.keyboard.press("Control+Enter")
    about(page, "3 of 9")
    page.keyboard.press("r")
    page.keyboard.press("i")
    about(page, "5 of 9")
    page.keyboard.press("u")  # the last decision, wherever it was
    about(page, "4 of 9")
    about(page, "undecided")
    saved(page)
    page.reload()  # in the middle of the work
    about(page, "4 of 9")
    assert page.text_content("#count") == "3 of 9 decided"
    page.keyboard.press("ArrowLeft")
    about(page, "reject")
    page.keyboard.press("n")
    about(page, "4 of 9")
    page.keyboard.press("e")
    page.keyboard.press("Escape")
    assert page.is_hidden("#editing")
    review = Review(tmp_path / "review.jsonl", {row["id"]: judged(row) for row in texts_to_review(tmp_path)})
    assert [review.standing(f"{i:06d}", "ann") for i in (1, 2, 4, 5)] == [
        Decision("accept"), Decision("edit", "A better text."), Decision("reject"), None]  # fmt: skip
    assert page.text_content("#caption") == "Source: <b>a boat</b>"  # text, not markup
    assert page.complaints == []
    if folder := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=f"{folder}/review.png")


def test_two_reviewers_in_two_tabs(chromium, served, tmp_path):
    address = served(6)
    ann, bob = ready(chromium, address, "ann"), ready(chromium, address, "bob")
    for page, keys in ((ann, "aar"), (bob, "rai")):
        for i, key in enumerate(keys):
            about(page, f"{i + 1} of 6")
            page.keyboard.press(key)
        saved(page)
    review = Review(tmp_path / "review.jsonl", ids := {row["id"]: judged(row) for row in texts_to_review(tmp_path)})
    assert (review.codes(ids, "ann"), review.codes(ids, "bob")) == ("aar...", "rai...")
    ann.reload()
    about(ann, "4 of 6")
    ann.keyboard.press("ArrowLeft")
    sees(ann, "#others", "Others: bob: ignore")


def test_who_is_named_in_the_address_decides(chromium, served, tmp_path):
    """A tab that somebody else had used went on deciding in that name."""
    address = served(4)
    page = ready(chromium, address, "ann")
    about(page, "1 of 4")
    page.goto(f"{address}?reviewer=bob")
    about(page, "1 of 4")
    assert page.input_value("#reviewer") == "bob"
    page.fill("#reviewer", "cem")
    page.press("#reviewer", "Enter")
    wait_until(lambda: page.evaluate("reviewer === 'cem'"))
    page.reload()
    about(page, "1 of 4")
    assert page.input_value("#reviewer") == "cem"


def test_decisions_wait_while_the_server_is_away(chromium, served):
    page = ready(chromium, served(4), "ann")
    away = True
    intercepted(page, "**/api/decisions", lambda route: route.abort() if away else route.continue_())
    sees(page, "#raw", "Picture")
    page.keyboard.press("a")
    sees(page, "#saved", "1 not saved yet")
    away = False
    saved(page)
    assert page.evaluate("codes.join('')") == "a..."


def test_a_decision_that_is_refused_is_said_and_holds_up_no_other(chromium, served):
    page = ready(chromium, served(4), "ann")
    stale = True
    told = {"status": 409, "json": {"error": "the texts are others: reload"}}
    intercepted(page, "**/api/decisions", lambda route: route.fulfill(**told) if stale else route.continue_())
    sees(page, "#raw", "Picture")
    page.keyboard.press("a")
    sees(page, "#saved", "saved, but 1 not taken: the texts are others: reload")
    assert page.evaluate("codes.join('')") == "...."  # it is not counted as decided
    assert page.text_content("#count") == "0 of 4 decided"
    stale = False
    about(page, "2 of 4")
    page.keyboard.press("r")
    wait_until(lambda: page.evaluate("codes.join('') === '.r..' && !queue.length"))
    sees(page, "#saved", "1 not taken: the texts are others: reload")  # still there to be read
    page.reload()
    sees(page, "#raw", "Picture")
    assert page.evaluate("codes.join('')") == ".r.."


def test_ten_thousand_texts_load_no_more_than_ten_do(chromium, served):
    page = chromium.new_context().new_page()
    fetched = []
    page.on("response", lambda response: fetched.append((response.url, int(response.headers.get("content-length", 0)))))
    page.goto(f"{served(10_000)}?reviewer=ann")
    about(page, "1 of 10,000")
    page.fill("#place", "9000")
    page.keyboard.press("Enter")
    about(page, "9000 of 10,000")
    page.wait_for_load_state("networkidle")
    assert len(fetched) < 30
    assert sum(size for _, size in fetched) < 100_000
