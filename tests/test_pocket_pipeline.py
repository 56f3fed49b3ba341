"""`minigpt4 train recipes/pocket/pipeline.yaml`, and what came before it, from photographs to weights, at tiny size."""

import json
import random
import shutil
from pathlib import Path

import pytest
import torch
from conftest import tiny_model, tiny_processor
from PIL import Image
from safetensors.torch import load_file

import minigpt4
from minigpt4.checkpoints.loading import load_system
from minigpt4.checkpoints.pocket import FOLDERS
from minigpt4.model.vision.efficientnet_lite import EfficientNetLiteConfig, EfficientNetLiteModel
from minigpt4.train.loop import train
from minigpt4.train.pipeline import load_pipeline, run_pipeline
from minigpt4.train.recipe import parse_recipe

ROOT = Path(__file__).parents[1]
LORA = {"r": 4, "alpha": 8, "target_modules": ["q_proj", "v_proj"]}


def write(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def image(path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (32, 32), random.Random(path.name).choice(["navy", "gold", "white"])).save(path)
    return f"images/{path.name}"


def photographs(source: Path, number: int = 24) -> None:
    """Folders as `recipes/pocket/data.py` reads them."""
    play = [
        "A man throws a red ball to a brown dog .",
        "The brown dog jumps for a ball .",
        "A man in a green jacket plays with his dog in a park near two tall trees .",
    ]
    flickr = [image(source / f"flickr8k/images/f{i}.jpg") for i in range(number)]
    write(source / "flickr8k/captions.jsonl", [{"image": name, "split": "train", "captions": play} for name in flickr])
    phrases = [{"phrase": "A man", "id": "1", "types": ["people"], "start": 0}]
    phrases += [{"phrase": "a brown dog", "id": "2", "types": ["animals"], "start": 26}]
    boxes = {"1": [[0.1, 0.2, 0.5, 1.0]], "2": [[0.5, 0.5, 0.9, 1.0]]}
    entities = {"split": "train", "captions": [{"caption": play[0], "phrases": phrases}], "boxes_xyxy_norm": boxes}
    write(source / "flickr8k/entities.jsonl", [{"image": name, **entities} for name in flickr])
    coco = [image(source / f"coco/images/c{i}.jpg") for i in range(number)]
    question = {"question": "What color is the cat?", "answers": ["black"] * 10}
    write(source / "coco/vqa.jsonl", [{"image": name, "qa": [question]} for name in coco])
    box = {"category": "cat", "bbox_xyxy_norm": [0.1, 0.2, 0.6, 0.7]}
    write(source / "coco/boxes80.jsonl", [{"image": name, "boxes": [box]} for name in coco[8:]])
    write(
        source / "coco/vsr.jsonl",
        [{"image": n, "vsr": [{"statement": "The cat is on the bed.", "label": 1}]} for n in coco[:12]],
    )
    write(source / "coco/persons.jsonl", [])
    write(
        source / "coco/captions.jsonl",
        [{"image": name, "captions": ["A cat sits on a bed", "A black cat"]} for name in coco[:8]],
    )
    rooms = [image(source / f"daquar/images/d{i}.jpg") for i in range(12)]
    write(source / "daquar/qa.jsonl", [{"image": n, "qa": [{"question": "what is it ?", "answer": "bed"}]} for n in rooms])
    food = [image(source / f"food_titles1000/images/t{i}.jpg") for i in range(12)]
    titles = {"captions": ["Cheese pizza on a white plate"], "is": ["Pizza"]}
    write(source / "food_titles1000/captions.jsonl", [{"image": name, **titles} for name in food])
    named = [
        {
            "image": image(source / f"imagenet_sample1000/images/{name}{i}.jpg"),
            "class": name,
            "basic": name,
            "basic_checked": True,
        }
        | {"imagenet_index": 0}
        for name in ("dog", "cat", "bus")
        for i in range(6)
    ]
    write(source / "imagenet_sample1000/labels.jsonl", named)


def parts(folder: Path) -> None:
    """A vision encoder that comes with its classifier, as the pocket's does, and a language model."""
    vision = EfficientNetLiteModel(
        EfficientNetLiteConfig(image_size=64, width_multiplier=0.3, depth_multiplier=0.5, class_grids=[1])
    )
    vision.config.class_grids = []
    vision.save_pretrained(folder / "vision")
    tiny = tiny_model()
    tiny.language_model.save_pretrained(folder / "llm")
    tiny_processor(tiny.config).tokenizer.save_pretrained(folder / "llm")


def first_and_last(system: minigpt4.Assistant, word: str) -> list[int]:
    """The first and the last token of a word."""
    ids = system.processor.tokenizer.encode(word, add_special_tokens=False)
    return [ids[0], ids[-1]]


def test_from_photographs_to_weights(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["minigpt4"])
    torch.manual_seed(0)
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    photographs(tmp_path / "data")
    parts(tmp_path / "parts")
    seen = sorted(path.relative_to("data").as_posix() for path in Path("data/coco").rglob("*.jpg"))
    write(Path("data/pocket/seen.jsonl"), [{"image": name, "names": [["cat", 0.9]]} for name in seen])  # no encoder is fetched
    written = {"question": "Write a poem about this picture.", "answer": "A cat so black,\nit looks right back."}
    write(
        Path("data/pocket/talk.jsonl"), [{"image": seen[0], **written}, {"question": "What is ice?", "answer": "Water."}] * 250
    )
    stage = {
        "model": {"vision": "parts/vision", "text": "parts/llm", "config": {"concat_order": "square"}, "template": "chatml"},
        "trained": {"lora": LORA},
        "data": {"datasets": [{"format": "jsonl", "annotations": "data/pocket/talk.jsonl", "images": "data"}]},
        "steps": 1,
        "precision": "fp32",
        "output": "shipped",
    }
    monkeypatch.setitem(FOLDERS, "pocket", train(parse_recipe(stage, "stage")))  # the pipelines go on from it

    def tiny(recipe):
        lora = recipe.trained.lora.model_copy(update=LORA)
        return recipe.model_copy(
            update={
                "steps": 1,
                "precision": "fp32",
                "trained": recipe.trained.model_copy(update={"lora": lora, "vision_layers": None, "vision_tower": False}),
                "schedule": recipe.schedule.model_copy(update={"warmup_steps": 1}),
            }
        )

    def averaged(pipeline):
        """Projections by their folders; a mean is the mean of what it is of."""
        weights = {
            folder: load_file(place / "trained.safetensors")["projection.weight"].float()
            for step in pipeline.steps
            if step.kind == "average"
            for folder in (*step.of, step.output)
            for place in [FOLDERS.get(folder, Path(folder))]
        }
        for step in pipeline.steps:
            if step.kind == "average":
                expected = sum(share * weights[folder] for folder, share in step.of.items())
                torch.testing.assert_close(weights[step.output], expected, atol=2e-3, rtol=1e-2)
        return weights

    earlier = load_pipeline(Path("recipes/pocket/earlier.yaml"))
    assert run_pipeline(earlier, tiny) == ["done"] * len(earlier.steps)
    weights = averaged(earlier)
    assert not torch.equal(weights["runs/talk"], weights["runs/talk_on"])
    named = minigpt4.load("runs/earlier", dtype="float32")
    pixels = torch.rand(1, 3, 64, 64)
    for before, after, which, classes in (
        ("talks", "named", "labelled", ["photo", "pizza"]),
        ("names", "things", "things", ["bed", "cat"]),
    ):
        assert Path(f"runs/{after}/classes_{which}.txt").read_text().split("\n")[:-1] == classes
        begun, plain = (load_system(f"runs/{name}", dtype=torch.float32)[0] for name in (after, before))
        sees, saw = begun.get_image_features(pixels), plain.get_image_features(pixels)
        number = len(begun.config.own_lists) - 1
        added = slice(2 * number, 2 * number + 2 if number else 2 * 6)  # the vision encoder's lists come with the first
        torch.testing.assert_close(torch.cat([sees[:, : added.start], sees[:, added.stop :]], 1), saw)
        scores = begun.connector.own(begun.get_vision_tokens(pixels)[:, 0])[..., -2:].softmax(-1)
        spelt = [begun.get_input_embeddings().weight[first_and_last(named, f" {name}")] for name in classes]
        means = scores[0, 0] * spelt[0] + scores[0, 1] * spelt[1]
        torch.testing.assert_close(sees[0, 2 * number : 2 * number + 2], means, atol=1e-4, rtol=1e-3)
    rows = [json.loads(line) for line in Path("data/pocket/world_captions.train.jsonl").read_text().splitlines()]
    short = [json.loads(line) for line in Path("data/pocket/short.train.jsonl").read_text().splitlines()]
    assert {row["answer"] for row in short if row["question"] == "What food is this?"} == {"A pizza.", "pizza"}
    assert any("cat" in text for row in rows if row["image"].startswith("coco/") for text in row["answers"])
    assert run_pipeline(earlier, tiny) == ["skipped"] * len(earlier.steps)
    monkeypatch.setitem(FOLDERS, "pocket", Path("runs/earlier"))
    pipeline = load_pipeline(Path("recipes/pocket/pipeline.yaml"))
    done = run_pipeline(pipeline, tiny)
    assert done[2:] == ["done"] * 2
    averaged(pipeline)
    assert minigpt4.load("runs/pocket", dtype="float32").ask(f"data/{seen[0]}", "what?", max_new_tokens=2) is not None
    assert run_pipeline(pipeline, tiny) == ["skipped"] * len(pipeline.steps)


@pytest.mark.parametrize(
    ("question", "answers", "things", "absent"),
    [
        ("What color is the cat?", ["white"] * 10, {"cat"}, set()),
        ("Is there a dog in the picture?", ["no"] * 10, set(), {"dog"}),
        ("How many zebras are there?", ["2"] * 10, {"zebra"}, set()),
        ("How many buses are there?", ["0"] * 10, set(), {"bus"}),
        ("What is the man riding?", ["surfboard"] * 10, {"man", "surfboard"}, set()),
        ("What is on the plate?", ["pizza"] * 3 + ["cake"] * 2, {"plate"}, set()),  # they do not agree
    ],
)
def test_what_questions_tell_of_an_image(question, answers, things, absent, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "recipes/pocket")
    from things import Image as Known

    known = Known()
    known.question(question, answers)
    assert (set(known.things), known.absent) == (things, absent)


@pytest.mark.parametrize(
    ("someone", "seen", "said"),
    [
        ([], ["kitchen"], "a view of a kitchen"),
        ([], ["sink", "kitchen", "oven"], "a kitchen with a sink and an oven"),
        (["man"], ["donut", "kitchen"], "a man with a donut in a kitchen"),
        (["man"], ["kitchen"], "a man in a kitchen"),
        ([], ["bus", "street"], "a bus on a street"),
        ([], ["snow"], "a view of the snow"),
        (["group of people"], [], "a group of people"),
        ([], ["cat", "bed", "lamp"], "a cat, a bed and a lamp"),
    ],
)
def test_what_is_known_of_an_image_in_one_phrase(someone, seen, said, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "recipes/pocket")
    from things import all_of

    assert all_of(someone, seen, {}) == said


def test_names_are_said_of_one_thing(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "recipes/pocket")
    from world import article

    said = [article("fish", "animal"), article("fish"), article("owl"), article("apples"), article("soup")]
    assert said == ["a fish", "fish", "an owl", "apples", "soup"]


@pytest.mark.parametrize(
    ("caption", "said"),
    [
        ("Brown dog biting a stick.", "there is a brown dog biting a stick"),
        ("Plate of food", "there is a plate of food"),
        ("elderly man in a wheelchair", "there is an elderly man in a wheelchair"),
        ("A cat.", "there is a cat"),
        ("Two dogs on grass.", "there are two dogs on grass"),
        ("white rice", "there is white rice"),
        ("food on a plate", "there is food on a plate"),
        ("The man is asleep.", "the man is asleep"),
    ],
)
def test_a_caption_without_an_article_gets_one_where_it_is_put_into_a_sentence(caption, said, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "recipes/pocket")
    from compose import clause

    assert clause(caption) == said


@pytest.mark.parametrize("kind", ["poem", "story", "advertisement", "funny"])
def test_an_answer_closes_with_what_its_captions_speak_of(kind, monkeypatch):
    """Most of them, or chance decides; and it is long enough to be used."""
    monkeypatch.syspath_prepend(ROOT / "recipes/pocket")
    from compose import OF_THINGS, composed, fitting
    from talk import fault

    captions = ["A man rides a train.", "A train at a station.", "A man with a horse."]
    assert fitting(kind, captions) == OF_THINGS[r"trains?|bus|buses|trucks?|cars?|traffic"][kind]
    assert fitting(kind, [*captions, "A man.", "A hat.", "A coat."]) is None
    answer = composed(kind, captions[:2], "vehicle", random.Random(0), captions)
    assert fitting(kind, captions) in answer
    assert fault(answer, captions) is None


def test_no_line_of_a_poem_is_said_twice(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "recipes/pocket")
    from compose import LAST_LINE, OF_THINGS, composed

    captions = ["A pizza on a plate.", "A plate of food."]
    assert any(close["poem"] in LAST_LINE["food"] for close in OF_THINGS.values())  # two places have the same line
    for seed in range(20):
        lines = composed("poem", captions, "food", random.Random(seed), captions).split("\n")
        assert len(set(lines)) == len(lines)


def test_answers_that_are_not_used(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "recipes/pocket")
    from talk import fault

    captions = ["A brown dog runs through the snow.", "A dog in the snow."]
    good = "A brown dog runs so fast today, it jumps across the snow, and when the evening comes it lies beside a fire with me."
    assert fault(good, captions) is None
    assert fault(good.replace("brown dog", "small kitten"), captions) in ("off topic", "contradiction")
    assert fault("A brown dog runs through the snow.", captions) == "length"
    assert fault("A brown dog runs in the snow. " * 5, captions) == "loop"
    assert fault(good + " This caption says so.", captions) == "forbidden"
