"""``minigpt4 converse`` and ``minigpt4 curate`` as a user types them, with a tiny system in every role."""

import json

import pytest
from commands import PLAIN, here, refused, run, world, written  # noqa: F401
from test_video import clip

from minigpt4.dialogue.prompts import SHIPPED


def test_a_dialogue_about_an_image(run, here):
    status, out, err = run("converse", "0.png", "--rounds", 3, *PLAIN)
    assert (status, err) == (0, "")
    assert out.count("Q: ") == out.count("A: ") >= 1
    assert out.startswith("Q: Please describe this image in detail.\nA: ")
    status, printed, _ = run("converse", "0.png", "--rounds", 3, "--json", *PLAIN)
    row = json.loads(printed)
    assert status == 0
    assert row["plain"] == row["rounds"][0]["answer"]
    assert row["spent"]["prompt_tokens"] > 0
    assert row["caption"] in out  # the same dialogue


def test_a_server_that_is_not_running_is_said_at_once(run, here):
    for role in ("--questioner", "--answerer", "--summariser"):
        status, _, err = run("converse", "0.png", "--rounds", 2, role, "http://127.0.0.1:9/v1#m", *PLAIN)
        assert (status, "is the server running?" in err) == (2, True)


def test_the_prompts_of_a_file_are_used(run, here):
    (here / "mine.yaml").write_text(SHIPPED.read_text().replace("Please describe this image in detail.", "What?"))
    assert run("converse", "0.png", "--rounds", 1, "--prompts", "mine.yaml", *PLAIN)[1].startswith("Q: What?\n")


def test_a_folder_is_continued_and_shown(run, here):
    arguments = ("converse", "photos", "--rounds", 2, "--output", "out.jsonl", "--html", "page.html", "--from-caption", *PLAIN)
    assert run(*arguments)[0] == 0
    rows = written(here / "out.jsonl")
    assert [row["image"] for row in rows] == sorted(row["image"] for row in rows)
    assert len(rows) == 4
    before = (here / "out.jsonl").read_bytes()
    (here / "out.jsonl").write_bytes(before[: len(before) // 2])
    assert run(*arguments)[0] == 0
    assert (here / "out.jsonl").read_bytes() == before
    assert (here / "page.html").read_text().count("<article>") == 4
    assert "answered from the plain caption alone" in (here / "page.html").read_text()


def test_a_dialogue_about_a_video(run, here):
    clip(here / "a.mp4", range(0, 200, 10))
    status, out, _ = run("converse", "--video", "a.mp4", "--frames", 3, "--rounds", 4, "--json", *PLAIN)
    row = json.loads(out)
    assert status == 0
    assert {round["frame"] for round in row["rounds"]} <= {1, 2, 3}
    assert row["rounds"][0]["time"] == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "images or a folder, or --video"),
        (("0.png", "--video", "a.mp4"), "or --video"),
        (("0.png", "--html", "p.html"), "--html needs --output"),
        (("0.png", "--from-caption"), "--from-caption goes with --html"),
        (("0.png", "1.png"), "need --output"),
        (("nothing.png",), "no such file"),
        (("0.png", "--prompts", "none.yaml"), r"none\.yaml"),
        (("0.png", "--questioner", "http://127.0.0.1:9/v1"), "#MODEL"),
        (("0.png", "--questioner", "http://x/v1#m", "--max-cost", 1), "prices"),
        (("0.png", "--prices", "cheap"), "two numbers"),
        (("--video", "nothing.mp4"), "no such file"),
        (("--video", "a.mp4", "--context", 2), "--context is for images"),
        (("--video", "a.mp4", "--detect"), "--detect is for images"),
        (("0.png", "--frames", 4), "--frames is for a video"),
        (("0.png", "--segments", 2), "--segments is for a video"),
        (("--video", "a.mp4", "--interval", 1), "--interval goes with --sampling interval"),
        (("0.png", "--max-cost", 1), "--max-cost and --cache go with an endpoint"),
        (("0.png", "--cache", "replies"), "--max-cost and --cache go with an endpoint"),
    ],
)
def test_what_does_not_go_together_is_refused(run, arguments, says):
    import re

    assert re.search(says, refused(run("converse", *arguments, *PLAIN)))


def test_a_curation_and_its_refusals(run, here):
    (here / "recipe.yaml").write_text(
        "output: out\ndraw: {folder: photos}\ndescribe: {agent: {model: base}, max_new_tokens: 12, continue_under: 20}\n"
        "rules: {min_words: 1, without: [cut_ending, stray_symbols, near_duplicate, foreign_script]}\n"
    )
    status, out, err = run("curate", "run", "recipe.yaml")
    assert len(written(here / "out" / "6_rules.jsonl")) == 4
    assert (here / "out" / "report.html").is_file()
    assert status == (0 if "descriptions of 4 images" in out else 2), err
    assert "no such key" in refused(run("curate", "run", "recipe.yaml", "--set", "draw.fodler=x"))
    assert "curate run" in refused(run("curate", "review", "photos"))
