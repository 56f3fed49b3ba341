"""The paper's advanced tasks about one's own images, and the page on which people rate the answers."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from browsing import chromium, intercepted, listening, opened, sees  # noqa: F401  (chromium is a fixture)
from serving import picture

from minigpt4 import cli
from minigpt4.errors import UserError
from minigpt4.evaluate.benchmarks.advanced import QUESTIONS
from minigpt4.evaluate.benchmarks.base import Against, Choice
from minigpt4.evaluate.benchmarks.registry import BENCHMARKS
from minigpt4.evaluate.rating import Ratings, rating_report

ADVANCED = BENCHMARKS["advanced"]


@pytest.fixture
def images(tmp_path):
    for name in ("meme/a.jpg", "meme/b.jpg", "poem/c.png", "holiday/d.jpg"):
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        picture().save(tmp_path / "images" / name)
    return tmp_path / "images"


@pytest.fixture
def run(images, tmp_path):
    """A run with three answers."""
    rows, _ = ADVANCED.rows(images)
    (tmp_path / "run").mkdir()
    lines = [json.dumps(row | {"answer": f"<b>{i}</b> & so on", "by": "me"}) + "\n" for i, row in enumerate(rows)]
    (tmp_path / "run" / "answers.jsonl").write_text("".join(lines))
    return tmp_path / "run"


def test_images_in_folders_by_task_are_asked_in_the_papers_words(images, tmp_path):
    rows, problems = ADVANCED.rows(images)
    assert [(row["image"], row["prompt"]) for row in rows] == [
        ("meme/a.jpg", "Explain why this meme is funny."),
        ("meme/b.jpg", "Explain why this meme is funny."),
        ("poem/c.png", "Can you craft a beautiful poem about this image?"),
    ]
    assert not problems
    assert [row["asked"] for row in ADVANCED.rows(images, Choice(split="poem"))[0]] == ["poem"]
    listed = tmp_path / "listed.jsonl"
    listed.write_text('{"image": "x.jpg", "asked": "recipe"}\n{"image": "y.jpg", "asked": "song"}\n')
    rows, problems = ADVANCED.rows(listed)
    assert ([row["prompt"] for row in rows], len(problems)) == (["How should I make something like this?"], 1)
    for wrong, told in ((Choice(split="song"), "advanced has the tasks meme"), (Choice(), "expected folders of images named")):
        with pytest.raises(UserError, match=told):
            ADVANCED.rows(images / "holiday" if wrong.split is None else images, wrong)


def test_the_report_says_what_rules_see(images):
    rows, _ = ADVANCED.rows(images)
    good = "It is funny because the dog wears a hat, and dogs do not wear hats."
    answered = [
        row | {"answer": text}
        for row, text in zip(rows, (good, "No.", "A line\nand a line\nand one about the dog"), strict=True)
    ]
    meme, poem = ADVANCED.report(answered, Against()).lines
    assert (meme.scores["flawed"].value, poem.scores["flawed"].value) == (0.5, 0)


def test_the_last_rating_of_a_person_counts_and_nothing_is_lost(run):
    ratings = Ratings(run)
    with pytest.raises(UserError, match="no ratings yet"):
        rating_report(ratings)
    for place, rater, rating in [(0, "Ann", "no"), (0, "Ann", "yes"), (1, "Ann", "no"), (2, "Ann", "yes"), (0, " Bo ", "no")]:
        ratings.rate(place, rater, rating)
    assert len((run / "ratings.jsonl").read_text().splitlines()) == 5
    with ThreadPoolExecutor() as pool:  # who looks while another rates waits: it was an error in the middle
        ratings._lock.acquire()
        looking = [pool.submit(ratings.of, "Ann"), pool.submit(lambda: ratings.raters)]
        with pytest.raises(TimeoutError):
            looking[0].result(timeout=0.2)
        assert not looking[1].done()
        ratings._lock.release()
        assert [len(each.result()) for each in looking] == [3, 2]
    with (run / "ratings.jsonl").open("a") as file:
        file.write('{"key": "cut sho')  # a kill
    again = Ratings(run)
    assert again.of("Ann") == {0: "yes", 1: "no", 2: "yes"}
    report = rating_report(again)
    assert {line.name: line.scores["success"].value for line in report.lines} == {"meme": 0.25, "poem": 1, "all": 0.5}
    assert report.notes == ["3 of 3 answers are rated, by Ann, Bo", "Ann and Bo agree on 0 of 1"]
    for place, rater, rating, told in [
        (3, "Ann", "yes", "number of an answer"),
        (0, "", "yes", "say who"),
        (0, "Ann", "perhaps", "yes or no"),
    ]:
        with pytest.raises(UserError, match=told):
            again.rate(place, rater, rating)


def test_the_command_prints_what_people_said(run, images, capsys):
    Ratings(run).rate(0, "Ann", "yes")
    cli.evaluate(["rate", str(run), "--report"], standalone_mode=False)
    assert "1 of 3 answers are rated, by Ann" in capsys.readouterr().out
    with pytest.raises(UserError, match="say with --images where the images are"):
        cli.evaluate(["rate", str(run)], standalone_mode=False)


pytest.importorskip("fastapi", reason="fastapi is not installed")


@pytest.fixture
def client(run, images):
    from fastapi.testclient import TestClient

    from minigpt4.evaluate.rating import rating_app

    return TestClient(rating_app(run, images), base_url="http://127.0.0.1")


def test_the_page_shows_and_keeps(client, run):
    for name in ("", "rating.js", "rating.css", "favicon.ico"):
        assert client.get(f"/{name}").status_code in (200, 204)
    assert client.get("/answers.jsonl").status_code == 404
    state = client.get("/api/state", params={"rater": "Ann"}).json()
    assert state == {"folder": "run", "ratings": [None, None, None]}
    shown = [client.get(f"/api/items/{i}").json() for i in range(3)]
    assert sorted(one["prompt"] for one in shown) == sorted([QUESTIONS["meme"], QUESTIONS["meme"], QUESTIONS["poem"]])
    assert client.get("/api/images/0").headers["content-type"] == "image/jpeg"
    assert client.get("/api/items/3").status_code == client.get("/api/images/-1").status_code == 404
    given = {"index": 1, "about": shown[1]["about"], "rater": "Ann", "rating": "yes"}
    other = client.post("/api/ratings", json=given | {"about": shown[0]["about"]}, headers={"x-rating": "1"})
    assert other.status_code == 409  # the page shows something else
    assert client.post("/api/ratings", json=given, headers={"x-rating": "1"}).json() == {"rating": "yes"}
    assert client.get("/api/state", params={"rater": "Ann"}).json()["ratings"] == [None, "yes", None]
    assert Ratings(run).of("Ann") == {Ratings(run).order()[1]: "yes"}


def test_nobody_else_can_rate(client):
    given = {"index": 1, "about": client.get("/api/items/1").json()["about"], "rater": "Ann", "rating": "yes"}
    assert client.post("/api/ratings", json=given).status_code == 403
    assert client.get("/", headers={"host": "evil.example"}).status_code == 400
    for wrong in ({"index": "1"}, {"index": True}, {"rater": ""}, {"rating": "perhaps"}, {"rating": None}):
        assert client.post("/api/ratings", json=given | wrong, headers={"x-rating": "1"}).status_code == 400
    assert "script-src 'self'" in client.get("/").headers["content-security-policy"]


# in a browser ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def address(run, images):
    """Of the page, served as `evaluate rate` serves it."""
    pytest.importorskip("starlette", reason="starlette is not installed")
    from minigpt4.evaluate.rating import rating_app

    with listening(rating_app(run, images)) as address:
        yield address


def ready(chromium, address):
    page = opened(chromium, address)
    sees(page, "#count", "of 3 rated, this is")
    return page


def named(page, name):
    """Say who rates, by keyboard alone."""
    page.keyboard.press("Tab")
    page.keyboard.type(name)
    page.keyboard.press("Enter")


def idle(page, name):
    """Wait until the page has what this person has rated before."""
    page.wait_for_url(f"**?rater={name}")
    page.wait_for_selector("body[aria-busy='false']")


def test_a_key_pressed_before_the_first_answer_is_there_rates_nothing(chromium, address, run):
    """It was kept, about an answer that was not shown yet, and the page then said that nothing was rated."""
    page = ready(chromium, address)
    waiting = []
    intercepted(page, "**/api/state?rater=Ann", waiting.append)
    sees(page, "#count", "of 3 rated, this is")
    named(page, "Ann")
    page.wait_for_url("**?rater=Ann")
    page.keyboard.press("y")
    page.wait_for_timeout(300)
    waiting[0].continue_()
    idle(page, "Ann")
    sees(page, "#count", "0 of 3 rated, this is 1")
    assert Ratings(run).of("Ann") == {}
    page.keyboard.press("y")
    sees(page, "#count", "1 of 3 rated, this is 2")
    assert page.complaints == []


def test_a_person_rates_by_keyboard_alone_and_a_reload_changes_nothing(chromium, address, run):
    page = ready(chromium, address)
    page.keyboard.press("y")
    sees(page, "#saved", "first say who you are")
    page.keyboard.type("Any")  # the field has the focus by now: its y is a letter, not a rating
    page.keyboard.press("Enter")
    idle(page, "Any")
    sees(page, "#count", "0 of 3 rated, this is 1")
    ratings = Ratings(run)
    first, second, third = ratings.order()
    sees(page, "#answer", ratings.rows[first]["answer"])  # markup of an answer is text
    sees(page, "#prompt", ratings.rows[first]["prompt"])
    page.wait_for_function("document.getElementById('image').naturalWidth === 40")
    page.keyboard.press("y")
    sees(page, "#count", "1 of 3 rated, this is 2")
    page.keyboard.press("n")
    sees(page, "#count", "2 of 3 rated, this is 3")
    sees(page, "#saved", "saved")
    page.keyboard.press("ArrowLeft")
    sees(page, "button[aria-pressed='true']", "no")
    page.keyboard.press("y")  # thought better of it
    sees(page, "#count", "this is 3")
    assert Ratings(run).of("Any") == {first: "yes", second: "yes"}
    page.reload()
    sees(page, "#count", "2 of 3 rated, this is 3")
    assert page.input_value("#rater") == "Any"
    sees(page, "#answer", ratings.rows[third]["answer"])
    page.click("text=no")
    sees(page, "#count", "3 of 3 rated")
    assert Ratings(run).of("Any") == {first: "yes", second: "yes", third: "no"}
    assert page.complaints == []


def test_two_people_rate_side_by_side(chromium, address, run):
    ann, bo = ready(chromium, address), ready(chromium, address)
    for page, name in ((ann, "Ann"), (bo, "Bo")):
        named(page, name)
        idle(page, name)
        sees(page, "#count", "0 of 3 rated, this is 1")
    for i, keys in enumerate(("yy", "yn", "ny")):
        for page, key in zip((ann, bo), keys, strict=True):
            sees(page, "#count", f"this is {i + 1}")
            page.keyboard.press(key)
            sees(page, "#count", f"{i + 1} of 3 rated")
    assert rating_report(Ratings(run)).notes[1] == "Ann and Bo agree on 1 of 3"
    assert ann.complaints == bo.complaints == []


def test_what_could_not_be_saved_is_said_and_not_passed_over(chromium, address, run):
    page, away = ready(chromium, address), True
    intercepted(page, "**/api/ratings", lambda route: route.abort() if away else route.continue_())
    sees(page, "#count", "of 3 rated, this is")
    named(page, "Ann")
    idle(page, "Ann")
    page.keyboard.press("y")
    sees(page, "#saved", "the server does not answer")
    sees(page, "#count", "0 of 3 rated, this is 1")
    away = False
    page.keyboard.press("y")
    sees(page, "#count", "1 of 3 rated, this is 2")
    assert len(Ratings(run).of("Ann")) == 1
