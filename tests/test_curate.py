"""Curation from the images to the files that training reads, and what is refused on the way."""

import io
import json
import random
import tarfile
import textwrap
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image
from scripted import Scripted

from minigpt4.curate.export import exported
from minigpt4.curate.pipeline import Pipeline
from minigpt4.curate.recipe import CONTINUE, DESCRIBE, Draw, load_recipe
from minigpt4.curate.review import LOG, Review, about
from minigpt4.curate.work import Work, repaired_by
from minigpt4.data.formats import build_source
from minigpt4.dialogue.agents import AgentError
from minigpt4.engine.params import SamplingParams
from minigpt4.errors import UserError
from minigpt4.io.lock import hold

ADJECTIVES = "red green blue small large wooden quiet narrow broken shiny".split()
NOUNS = "dog cat boat tree house lamp bench bird horse shoe".split()


def sentence(seed):
    rng = random.Random(seed)
    pick = lambda some: rng.choice(some)  # noqa: E731
    parts = [f"A {pick(ADJECTIVES)} {pick(NOUNS)} stands near the {pick(ADJECTIVES)} {pick(NOUNS)}" for _ in range(3)]
    return ". ".join(parts) + "."


def describer(prompt):
    """Says something of its own about each image, a flaw about some; short answers are continued."""
    name = Path(prompt.images[0]).stem if prompt.images else ""
    if prompt.messages[-1]["content"] == CONTINUE:
        return f"There is more of it, {sentence(name + 'more')}"
    if name == "003":
        return AgentError("HTTP 500")
    if name == "004":
        return "I apologize for that."
    return sentence(name)


@pytest.fixture
def world(tmp_path):
    (tmp_path / "images").mkdir()
    for i in range(12):
        Image.new("RGB", (24, 18), (20 * i, 0, 0)).save(tmp_path / "images" / f"{i:03d}.{'jpg' if i % 2 else 'png'}")
    return tmp_path


def recipe(world, text="", **changes):
    file = world / "recipe.yaml"
    file.write_text(
        textwrap.dedent(f"""
        output: {world}/out
        draw: {{folder: {world}/images, count: 10}}
        describe: {{agent: {{model: scripted}}, batch: 3}}
        rules: {{min_words: 8}}
        """)
        + text
    )
    return load_recipe(file, [f"{key}={value}" for key, value in changes.items()])


def run(wanted, say=describer):
    agent = Scripted(say)
    return Pipeline(wanted, work(wanted, agent)).run(), agent


def work(wanted, agent, **systems):
    return Work(wanted, make=lambda _: agent, load=systems.get)


def test_the_steps_go_as_the_paper_says(world):
    done, agent = run(recipe(world))
    first = agent.prompts[0]
    assert first.messages == [{"role": "user", "content": DESCRIBE}]
    again = next(prompt for prompt in agent.prompts if len(prompt.messages) == 3)
    assert again.messages[1]["role"] == "assistant"
    assert again.messages[2] == {"role": "user", "content": CONTINUE}
    row = done.steps["rules"][0]
    name = Path(row["image"]).stem
    assert row["raw"] == sentence(name)
    assert row["continued"] == f"{row['raw']} There is more of it, {sentence(name + 'more')}"
    assert row["was_short"]
    assert len(done.steps["draw"]) == len({row["image"] for row in done.steps["draw"]}) == 10
    assert [row.get("error") for row in done.steps["describe"] if "error" in row] == ["HTTP 500"] * (
        any(Path(row["image"]).stem == "003" for row in done.steps["draw"])
    )


def test_a_long_answer_is_not_continued(world):
    done, agent = run(recipe(world, **{"describe.continue_under": 5}))
    short = [row["id"] for row in done.steps["continue"] if row["was_short"]]
    assert short == [row["id"] for row in done.steps["describe"] if "apologize" in row.get("raw", "") and row["raw_tokens"] < 5]
    assert len(short) == sum(len(prompt.messages) > 1 for prompt in agent.prompts) <= 1
    assert all(row["continued"] == row["raw"] for row in done.steps["continue"] if row["id"] not in short)


def test_training_reads_what_is_exported(world):
    wanted = recipe(world, **{"draw.count": "null"})
    done, _ = run(wanted)
    kept = exported(wanted, done)
    ids = [row["id"] for row in kept]
    assert "000003" not in ids  # it failed
    assert len(kept) >= 8
    published = build_source("cc_sbu_align", annotations=str(world / "out" / "export"))
    ours = build_source("jsonl", annotations=str(world / "out" / "export" / "rows.jsonl"))
    for source in (published, ours):
        assert len(source) == len(kept)
        assert not list(source.problems())
        for i, row in enumerate(kept):
            sample = source.sample(i, random.Random(0))
            assert sample.turns[0].answers == (row["text"],)
            with Image.open(sample.images[0]) as image:
                assert image.format == "JPEG"
                assert image.getpixel((5, 5))[0] == pytest.approx(20 * int(row["id"]), abs=3)
    text = (world / "out" / "report.html").read_text()
    assert "Survival by step" in text
    assert "HTTP 500" in text


def test_repair_by_an_agent(world):
    wanted = recipe(
        world, "repair: {how: agent, agent: {endpoint: 'http://x/v1', name: m}, with_caption: true}", **{"draw.count": 4}
    )

    def say(prompt):
        if prompt.messages[0]["role"] == "system":
            assert not prompt.images
            assert prompt.messages[0]["content"] == wanted.repair.prompt
            return "A tidy paragraph about " + prompt.messages[1]["content"]
        return describer(prompt)

    done, _ = run(wanted, say)
    assert all(row["text"] == "A tidy paragraph about " + row["continued"] for row in done.steps["repair"])


@pytest.mark.parametrize(
    ("reply", "text", "refused"),
    [
        ("The paragraph is already correct.", "before", False),
        ("It is already correct, but for a repetition of words.", "before", True),
        ("The paragraph is incomplete, please give me the rest of it now.", "before", True),
        ("Too short.", "before", True),
        ("", "before", True),
        ("A" * 50, "A" * 50, False),
    ],
)
def test_what_the_repairer_says_is_read_as_published(reply, text, refused):
    found = repaired_by(reply, "before")
    assert (found["text"], "refused" in found) == (text, refused)


class Sees:
    """A system that finds some things, and finds some words likelier with an image."""

    def __init__(self, *found, likelier=()):
        self.found, self.likelier, self.engine = found, likelier, self
        self.asked = []

    def detect(self, image, phrase, *, self_consistency):
        assert self_consistency == 1  # a box for each of hundreds of texts' things: sixteen answers each take a night
        self.asked.append(phrase)
        return SimpleNamespace(phrases=((phrase, (1,) if phrase in self.found else ()),))

    def plain(self, text):
        return text

    def score(self, request):
        def logprobs(text):
            words = text.split()
            gain = sum(word in self.likelier for word in words) if request.images else 0
            return [SimpleNamespace(logprob=-2.0)] * (len(words) - gain) + [SimpleNamespace(logprob=-1.0)] * gain

        assert request.messages[0]["content"].endswith(DESCRIBE)
        return [SimpleNamespace(logprobs=[*logprobs(text), SimpleNamespace(logprob=-50.0)]) for text in request.candidates]


def test_things_that_are_not_found_reject_a_text(world):
    wanted = recipe(world, **{"draw.count": 3, "check.detector": "x"})
    text = "A dog waits near the open gate of a garden. A boat lies behind it."
    agent = Scripted(lambda prompt: f"{text} {sentence(Path(prompt.images[0]).stem)}")
    done = Pipeline(wanted, work(wanted, agent, x=Sees("dog"))).run()
    assert not done.kept
    assert {flaw["rule"] for row in done.steps["rules"] for flaw in row["flaws"]} == {"not_found"}
    row = done.steps["check"][0]
    assert row["unfound"][:3] == ["gate", "garden", "boat"]
    assert row["things"] == len(row["unfound"]) + 1
    everything = Sees(*ADJECTIVES, *NOUNS, "gate", "garden", "more")
    other = recipe(world, **{"draw.count": 3, "check.detector": "x", "output": world / "b"})
    assert len(Pipeline(other, work(other, agent, x=everything)).run().kept) == 3
    asked = len(everything.asked)
    looser = recipe(world, **{"draw.count": 3, "check.detector": "x", "output": world / "b", "rules.not_found": 0.9})
    Pipeline(looser, work(looser, agent, x=everything)).run()
    assert len(everything.asked) == asked  # another rule asks no model again


def test_sentences_that_the_image_makes_no_likelier_reject_a_text(world):
    texts = ["A dog waits by the gate. A cat sleeps on the wall.", "A boat lies on the sand. A cat is far away here."]
    wanted = recipe(world, **{"draw.count": 2, "check.scorer": "x", "describe.continue_under": 0})
    done = Pipeline(wanted, work(wanted, Scripted(texts), x=Sees(likelier=("dog", "gate.")))).run()
    assert [row["gains"] for row in done.steps["check"]] == [[round(2 / 6, 4), 0.0], [0.0, 0.0]]
    assert [[flaw["rule"] for flaw in row["flaws"]] for row in done.steps["rules"]] == [["no_gain"], ["no_gain"]]
    assert [row["flaws"][0]["evidence"] for row in done.steps["rules"]] == ["A cat sleeps on the wall.", texts[1]]
    looser = recipe(world, **{"draw.count": 2, "check.scorer": "x", "describe.continue_under": 0, "rules.no_gain": 0.6})
    done = Pipeline(looser, work(looser, Scripted(["never asked"]), x=None)).run()
    assert [row["keep"] for row in done.steps["rules"]] == [True, False]


def test_reviewers_are_above_the_rules(world):
    wanted = recipe(world, **{"draw.count": "null"})
    done, _ = run(wanted)
    ids = [row["id"] for row in done.kept]
    review = Review(world / "out" / LOG, {row["id"]: about(row) for row in done.steps["rules"]})
    review.decide(ids[0], "ann", "reject")
    review.decide(ids[1], "ann", "edit", "An edited text.")
    review.decide(ids[2], "ann", "accept")
    review.decide(ids[2], "bob", "reject")
    flawed = next(row["id"] for row in done.steps["rules"] if not row["keep"])
    review.decide(flawed, "ann", "accept")
    kept = {row["id"]: row["text"] for row in exported(wanted, done)}
    assert ids[0] not in kept
    assert ids[2] not in kept  # they differ
    assert kept[ids[1]] == "An edited text."
    assert flawed in kept
    assert set(kept) == {path.stem for path in (world / "out" / "export" / "image").iterdir()}
    strict = {row["id"] for row in exported(recipe(world, **{"draw.count": "null", "export.unreviewed": "drop"}), done)}
    assert strict == {ids[1], flawed}


def test_a_decision_that_finds_no_room_spoils_no_other(tmp_path, monkeypatch):
    review = Review(tmp_path / "review.jsonl", {"a": "", "b": ""})
    real, review.path = review.path, Path("/dev/full")
    with pytest.raises(UserError, match="the decision is not kept"):
        review.decide("a", "ann", "accept")
    review.path = real
    monkeypatch.setattr("minigpt4.curate.review.os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(UserError, match="the decision is not kept"):
        review.decide("a", "ann", "accept")
    monkeypatch.undo()
    review.decide("b", "ann", "reject")
    assert Review(real, {"a": "", "b": ""}).codes(["a", "b"], "ann") == ".r"


@pytest.mark.parametrize("settings", [{"num_beams": "x"}, {"temperature": [1]}, {"stop": 5}, {"do_sample": "no"}])
def test_settings_of_a_recipe_that_have_the_wrong_type(settings):
    (name,) = settings
    with pytest.raises(UserError, match=f"^{name} must be "):
        SamplingParams.from_settings(settings)


def test_the_rule_about_repairs_can_be_left_out(world):
    """It is no rule about texts, and was not asked whether it is wanted."""
    text = "repair: {how: agent, agent: {model: scripted}}\n"
    for without in ([], ["repair_refused"]):
        wanted = recipe(world, text, **{"rules.without": json.dumps([*without, "near_duplicate"]), "draw.count": 2})
        done, _ = run(wanted, lambda prompt: sentence("x") if prompt.images else "The paragraph is incomplete.")
        found = {flaw["rule"] for row in done.steps["rules"] for flaw in row["flaws"]}
        assert ("repair_refused" in found) is not bool(without)


def test_a_stream_without_images_is_said(world, tmp_path):
    tarfile.open(tmp_path / "0.tar", "w").close()
    wanted = recipe(world).model_copy(
        update={"draw": Draw(dataset={"format": "webdataset_stream", "shards": str(tmp_path / "0.tar")})}
    )
    with pytest.raises(UserError, match=r"no samples in .*0\.tar; expected images to draw from"):
        run(wanted)


def test_two_runs_in_one_folder_are_refused(world):
    wanted = recipe(world)
    held = hold(wanted.output, "a curation")
    with pytest.raises(UserError, match="another curation is writing there already"):
        run(wanted)
    held.release()
    run(wanted)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("draw: {folder: a}", "output: Field required"),
        ('output: "a\\0"\ndraw: {folder: a}', "no folder can have this name"),
        ("output: o\ndraw: {dataset: {format: [1]}}", "its format, which is a name"),
        ("output: o\ndraw: {}", "folder or a dataset"),
        ("output: o\ndraw: {foldr: a}", r"draw\.foldr: no such key \(did you mean folder\?\)"),
        ("output: o\ndraw: {folder: a}\nrepair: {how: agent}", "needs one"),
        ("output: o\ndraw: {folder: a}\ndescribe: {agent: {}}", "a model or an endpoint"),
        ("output: o\ndraw: {folder: a}\ndescribe: {agent: {endpoint: u}}", "name of its model"),
        ("[", "not YAML"),
        ("3", "expected a mapping"),
    ],
)
def test_a_wrong_recipe_is_refused_by_name(tmp_path, text, says):
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(UserError, match=says):
        load_recipe(tmp_path / "r.yaml")


def test_a_rule_that_does_not_exist_cannot_be_switched_off(world):
    with pytest.raises(UserError, match="no rule 'apologies'"):
        Pipeline(recipe(world, **{"rules.without": "[apologies]"}))


def test_images_come_from_tars_and_tables_too(world):
    rows = [{"image": str(path), "answer": "A caption."} for path in sorted((world / "images").iterdir())]
    (world / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    dataset = f"{{format: jsonl, annotations: {world}/rows.jsonl}}"
    wanted = recipe(world, draw=f"{{dataset: {dataset}, count: 5}}")
    done, _ = run(wanted)
    assert [row["caption"] for row in done.steps["draw"]] == ["A caption."] * 5
    import io
    import tarfile

    with tarfile.open(world / "00000.tar", "w") as tar:
        for row in rows:
            for ending, data in (("jpg", Path(row["image"]).read_bytes()), ("json", b'{"caption": "In a tar."}')):
                member = tarfile.TarInfo(f"{Path(row['image']).stem}.{ending}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    dataset = f"{{format: laion, shards: {world}/00000.tar}}"
    wanted = recipe(world, draw=f"{{dataset: {dataset}, count: 5}}", output=f"{world}/tar")
    done, _ = run(wanted, ["A quiet dog waits beside the narrow gate of a garden."])
    assert len(done.steps["draw"]) == 5
    assert all(Image.open(row["image"]).size == (24, 18) for row in done.steps["draw"])


@pytest.fixture
def stored(world):
    """Datasets with images in files, and in an archive, of which one of each cannot be read."""
    rows = [{"image": f"{i:03d}.png", "answer": f"Thing number {i}."} for i in range(0, 8, 2)]
    rows[1]["image"] = "gone.png"
    (world / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with tarfile.open(world / "a.tar", "w") as tar:
        for i in range(0, 8, 2):
            image = (world / "images" / f"{i:03d}.png").read_bytes()
            text = json.dumps({"caption": f"Thing number {i}."}).encode()
            for name, data in ((f"{i}.png", image[:60] if i == 2 else image), (f"{i}.json", text)):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return {
        "files": f"{{format: jsonl, annotations: {world}/rows.jsonl, images: {world}/images}}",
        "an archive": f"{{format: cc_sbu, shards: {world}/a.tar}}",
    }


@pytest.mark.parametrize("where", ["files", "an archive"])
def test_an_image_that_cannot_be_read_is_a_row_with_its_error(world, stored, where):
    """It stopped all others."""
    wanted = recipe(world, draw=f"{{dataset: {stored[where]}}}")
    done, _ = run(wanted)
    assert ["error" in row for row in done.steps["draw"]] == [False, True, False, False]
    assert [row["id"] for row in done.steps["describe"]] == ["000000", "000002", "000003"]
    exported(wanted, done)


def test_images_of_an_archive_are_written_once_and_keep_their_ids(world, stored):
    wanted = recipe(world, draw=f"{{dataset: {stored['an archive']}}}")
    done, _ = run(wanted)
    files = sorted((world / "out" / "images").iterdir())
    before = [(path.name, path.stat().st_ino, path.stat().st_mtime_ns) for path in files]
    again, agent = run(wanted)
    assert again == done
    assert not agent.prompts
    assert [(path.name, path.stat().st_ino, path.stat().st_mtime_ns) for path in files] == before
    files[0].write_bytes(b"")  # a kill of an earlier version
    assert run(wanted)[0] == done
