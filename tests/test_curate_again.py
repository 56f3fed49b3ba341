"""Curation that is begun again, after kills, edits and failures, or with other images: what stays, and what is made anew."""

import json
import multiprocessing
import random
import time
from pathlib import Path

import pytest
from PIL import Image
from test_curate import describer, recipe, run, world  # noqa: F401  (the last is a fixture)

from minigpt4.curate.export import exported
from minigpt4.curate.pipeline import FILES, IDS
from minigpt4.curate.review import LOG, Review, about
from minigpt4.dialogue.agents import AgentError, CostCeiling
from minigpt4.errors import UserError

MADE = {step: name for step, name in FILES.items() if step != "check"}  # where nobody checks


def written(path):
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def test_done_work_is_not_done_again_and_failures_are_tried_again(world):
    wanted = recipe(world, **{"draw.count": "null"})
    run(wanted)
    before = {name: (world / "out" / name).read_bytes() for name in MADE.values()}
    _, agent = run(wanted)
    assert [Path(prompt.images[0]).stem for prompt in agent.prompts] == ["003"]
    assert {name: (world / "out" / name).read_bytes() for name in MADE.values()} == before
    done, _ = run(wanted, lambda prompt: "A dog sits quietly on the mat near an open door. It waits for its owner.")
    assert "error" not in done.steps["describe"][3]
    assert [row["id"] for row in done.steps["rules"]] == [f"{i:06d}" for i in range(12)]


def test_what_a_person_edits_stays_and_what_follows_is_made_anew(world):
    wanted = recipe(world, **{"draw.count": 6})
    run(wanted)
    file = world / "out" / FILES["describe"]
    rows = written(file)
    good = next(i for i, row in enumerate(rows) if "error" not in row and "apolog" not in row["raw"])
    rows[good]["raw"] = "A zebra drinks water at the river bank in the evening light."
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done, agent = run(wanted)
    edited = done.steps["rules"][[row["id"] for row in done.steps["rules"]].index(rows[good]["id"])]
    assert edited["text"].startswith("A zebra drinks water")
    assert (
        sum(
            bool(prompt.images) and "zebra" in prompt.messages[1]["content"]
            for prompt in agent.prompts
            if len(prompt.messages) > 1
        )
        == 1
    )
    done, _ = run(recipe(world, **{"draw.count": 6, "describe.prompt": "Other."}))  # other settings: what was edited stays
    assert done.steps["describe"][good]["raw"].startswith("A zebra")


def edit(file, text, ids):
    rows = [row | ({"text": f"{text} {row['id']}."} if row["id"] in ids else {}) for row in written(file)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_edited_rows_outlive_a_run_that_has_no_use_for_them(world):
    """A smaller draw, or an endpoint that failed, took them away without a word."""
    whole, few = recipe(world, **{"draw.count": 8}), recipe(world, **{"draw.count": 1})
    run(whole)
    file, aside = world / "out" / FILES["repair"], world / "out" / "4_repair.aside.jsonl"
    ids = [row["id"] for row in written(file)][:3]
    edit(file, "Written by hand:", ids)
    before = file.read_bytes()
    run(few)
    assert {row["id"] for row in written(aside)} >= set(ids) - {row["id"] for row in written(file)}
    run(few)
    run(whole)
    assert file.read_bytes() == before
    assert not aside.exists()
    other = recipe(world, **{"draw.count": 8, "describe.prompt": "Describe it."})
    run(other, lambda prompt: AgentError("HTTP 400"))
    assert [row["text"] for row in written(aside)] == [f"Written by hand: {id}." for id in ids]
    done, _ = run(other)
    assert [row["text"] for row in done.steps["repair"] if row["id"] in ids] == [f"Written by hand: {id}." for id in ids]
    assert not aside.exists()


def test_an_edited_row_is_not_given_to_another_image(world):
    wanted = recipe(world, **{"draw.count": "null"})
    run(wanted)
    file, aside = world / "out" / FILES["repair"], world / "out" / "4_repair.aside.jsonl"
    row = written(file)[0]
    edit(file, "Written by hand:", [row["id"]])
    image = Path(row["image"])
    kept = image.read_bytes()
    Image.new("RGB", (31, 17), "purple").save(image)
    done, _ = run(wanted)
    assert not any(one["text"].startswith("Written by hand") for one in done.steps["repair"])
    image.write_bytes(kept)
    done, _ = run(wanted)
    assert done.steps["repair"][0]["text"] == f"Written by hand: {row['id']}."
    assert not aside.exists()


def test_a_line_that_a_person_broke_is_named_and_nothing_is_lost(world):
    wanted = recipe(world, **{"draw.count": 4})
    run(wanted)
    file = world / "out" / FILES["describe"]
    broken = file.read_text().replace('"raw":', '"raw"', 1)
    file.write_text(broken)
    with pytest.raises(UserError, match=r"2_describe\.jsonl:1: not JSON"):
        run(wanted)
    assert file.read_text() == broken


def test_at_the_cost_ceiling_the_run_ends_and_goes_on_later(world):
    wanted = recipe(world, **{"draw.count": 9})
    said = iter(range(100))
    with pytest.raises(UserError, match="ceiling"):
        run(wanted, lambda prompt: describer(prompt) if next(said) < 5 else CostCeiling("the ceiling is reached"))
    assert len(written(world / "out" / FILES["describe"])) == 6  # two batches; of the second, one row failed
    done, _ = run(wanted)
    fresh, _ = run(recipe(world, **{"draw.count": 9, "output": world / "fresh"}))
    assert done == fresh


def test_rows_are_made_anew_when_the_code_of_the_rules_has_changed(world, monkeypatch):
    from minigpt4.curate import pipeline

    wanted = recipe(world, **{"draw.count": 3})
    before, _ = run(wanted)
    assert run(wanted)[0] == before
    monkeypatch.setattr(pipeline, "code_of", lambda *modules: {"code": "later"})
    after, agent = run(wanted)
    for step, same in (("describe", True), ("continue", True), ("repair", False), ("rules", False)):
        pairs = zip(before.steps[step], after.steps[step], strict=True)
        assert all((one["from"] == other["from"]) == same for one, other in pairs), step
    assert not [prompt for prompt in agent.prompts if Path(prompt.images[0]).stem != "003"]


def test_a_system_that_has_learnt_more_is_asked_anew(world):
    (world / "stage1").mkdir()
    (world / "stage1" / "trained.safetensors").write_bytes(b"weights")
    wanted = recipe(world, **{"draw.count": 3, "describe.agent.model": f"{world}/stage1"})
    _, agent = run(wanted, lambda prompt: "A dog.")
    _, again = run(wanted, lambda prompt: "A dog.")
    (world / "stage1" / "trained.safetensors").write_bytes(b"weighty")
    _, later = run(wanted, lambda prompt: "A dog.")
    assert (len(agent.prompts), len(again.prompts), len(later.prompts)) == (6, 0, 6)


def test_images_that_are_others_now_take_neither_texts_nor_decisions_nor_files_along(world):
    """A new image moves the places of those behind it; a replaced one keeps its name."""
    wanted = recipe(world, **{"draw.count": "null"})
    done, _ = run(wanted)
    ids = [row["id"] for row in done.kept]
    review = Review(world / "out" / LOG, {row["id"]: about(row) for row in done.steps["rules"]})
    decided = {ids[-1]: "Of the last.", "000002": "Of one that is replaced."}
    for id, text in decided.items():
        review.decide(id, "ann", "edit", text)
    was = {row["text"]: row["image"] for row in exported(wanted, done)}
    assert set(decided.values()) <= set(was)
    Image.new("RGB", (24, 18), (0, 250, 0)).save(world / "images" / "000a.jpg")
    Image.new("RGB", (24, 18), (0, 0, 250)).save(world / "images" / "002.png")
    done, agent = run(wanted)
    assert "002" in [Path(prompt.images[0]).stem for prompt in agent.prompts]
    kept = exported(wanted, done)
    now = {row["text"]: row["image"] for row in kept}
    assert now["Of the last."] == was["Of the last."]
    assert "Of one that is replaced." not in now
    for row in kept:
        with Image.open(world / "out" / "export" / "image" / f"{row['id']}.jpg") as copy, Image.open(row["image"]) as image:
            assert copy.getpixel((5, 5)) == pytest.approx(image.getpixel((5, 5)), abs=3)


@pytest.mark.parametrize("older", [False, True])
def test_an_image_that_is_added_leaves_the_others_what_they_have(world, older):
    """All behind it had new ids: their texts were made anew, edits put aside, and decisions no longer counted."""
    wanted = recipe(world, **{"draw.count": "null"})
    done, _ = run(wanted)
    file = world / "out" / FILES["repair"]
    edited = [row["image"] for row in written(file)][:3]
    edit(file, "Written by hand, about what nobody else has seen in it:", [row["id"] for row in written(file)][:3])
    done, _ = run(wanted)
    review = Review(world / "out" / LOG, {row["id"]: about(row) for row in done.steps["rules"]})
    rejected = [row["image"] for row in done.steps["rules"]][1:]
    for row in done.steps["rules"][1:]:
        review.decide(row["id"], "ann", "reject")
    if older:  # as folders are that were made before ids were kept
        (world / "out" / IDS).unlink()
    else:
        run(recipe(world, **{"draw.count": 1}))  # nor is anything forgotten of what is not drawn for a while
    Image.new("RGB", (24, 18), (0, 250, 0)).save(world / "images" / "000a.jpg")
    done, agent = run(wanted)
    asked = {Path(prompt.images[0]).stem for prompt in agent.prompts}
    assert asked == {"000a", "003"} if older else "000a" in asked
    assert [row["image"] for row in done.steps["repair"] if row["text"].startswith("Written by hand")] == edited
    assert not (world / "out" / "4_repair.aside.jsonl").exists()
    images = [row["image"] for row in exported(wanted, done)]
    assert not set(images) & set(rejected)
    assert len({row["id"] for row in done.steps["draw"]}) == 13


def test_images_of_one_content_have_an_id_each(world):
    for name in ("000a.png", "020.png"):
        (world / "images" / name).write_bytes((world / "images" / "000.png").read_bytes())
    done, _ = run(recipe(world, **{"draw.count": "null"}))
    ids = {row["image"]: row["id"] for row in done.steps["draw"]}
    assert len(set(ids.values())) == 14
    (world / "images" / "000a.png").unlink()
    again, _ = run(recipe(world, **{"draw.count": "null"}))
    assert all(ids[row["image"]] == row["id"] for row in again.steps["draw"])


# kill -9 ----------------------------------------------------------------------------------------------------------------


def killed_after(seconds, work):
    """Whether `work`, in a process of its own, was still busy after so long and has been killed."""
    child = multiprocessing.get_context("fork").Process(target=work)
    child.start()
    child.join(seconds)
    busy = child.is_alive()
    child.kill()
    child.join()
    return busy


def test_a_kill_at_any_moment_changes_nothing_in_the_end(world):
    wanted = recipe(world, **{"draw.count": "null"})
    done, _ = run(wanted)
    exported(wanted, done)
    expected = contents(world / "out")
    again = recipe(world, **{"draw.count": "null", "output": world / "killed" / "out"})

    def work():
        def slow(prompt):
            time.sleep(0.003)
            return describer(prompt)

        exported(again, run(again, slow)[0])

    rng = random.Random(0)
    killed = 0
    while killed < 20 and killed_after(rng.uniform(0.005, 0.06), work):
        killed += 1
    work()
    assert killed >= 3
    assert contents(world / "killed" / "out") == expected


@pytest.mark.parametrize("step", ["describe", "continue", "repair", "rules"])
def test_a_file_cut_at_any_byte_is_mended(world, step):
    wanted = recipe(world, **{"draw.count": "null"})
    run(wanted)
    expected = {name: (world / "out" / name).read_bytes() for name in MADE.values()}
    data = expected[FILES[step]]
    later = list(MADE.values())[list(MADE).index(step) + 1 :]
    for cut in random.Random(1).sample(range(len(data)), 12):
        (world / "out" / FILES[step]).write_bytes(data[:cut])
        for name in later:
            (world / "out" / name).unlink()
        run(wanted)
        assert {name: (world / "out" / name).read_bytes() for name in MADE.values()} == expected


def contents(folder):
    files = [*(folder / name for name in FILES.values()), *(folder / "export").rglob("*"), folder / "report.html"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files if path.is_file()}
