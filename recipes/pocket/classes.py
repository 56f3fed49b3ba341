"""Adds image tokens that name what two classifiers see to a system with the pocket's vision encoder.

    python recipes/pocket/classes.py FROM data/pocket SYSTEM runs/named

The vision encoder's own classifier gives 1,000 probabilities for the whole image and for each of its quarters. A second one,
fitted here to the same features (multinomial regression), knows kinds that photographs of data/pocket are labelled with and
ImageNet has no class for: dishes, groceries, rooms, clothes, scenes, who is there; and "none of these". Each list of
probabilities becomes two image tokens.

The projection's columns for a class begin as word embeddings of the class's everyday name: its first and its last token, or a
comma for the second where there is only one. So the language model reads a name that it has never been taught, and training
goes on from there. The rest of the system is as it was.
"""

import copy
import json
import re
import sys
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from minigpt4.checkpoints.folders import find_folder, read_config, vision_folder
from minigpt4.checkpoints.loading import load_system
from minigpt4.checkpoints.parts import vision_of_part
from minigpt4.checkpoints.trained import read_trained

sys.path.insert(0, str(Path(__file__).parent))
from seen import names_of_classes

GRIDS, TOKENS = [1, 2], 2
KINDS = (
    "food_titles1000",
    "recipes_public_domain",
    "grocery_store",
    "houses_rooms",
    "clothing_small",
    "corel_scenes",
    "camvid_street",
)
"""Folders of photographs whose labels are classes; those of `NAMED` are so where one of these has the same name."""
NAMED = ("imagenet_sample1000", "nips2017_openphotos1000", "cats_dogs", "voc2007_boxes")
PEOPLE = {
    "man": "man men", "woman": "woman women", "boy": "boy boys", "girl": "girl girls",
    "child": "child children kid kids baby toddler", "people": "people group crowd",
}  # fmt: skip
NO_NAMES = ("plate of food",)
"""Labels that say nothing of what they are given to: any dish would be one."""
NONE = "photo"
LEAST, FEWEST_SHARE = 4, 3
"""Photographs that a class has at least, and one of how many of `NAMED` and of flickr8k are looked at."""


def main() -> None:
    source, data, base, target = Path(sys.argv[1]), Path(sys.argv[2]), find_folder(sys.argv[3]), Path(sys.argv[4])
    settings = read_config(base)
    target.mkdir(parents=True, exist_ok=True)
    if settings.class_tokens:
        for file in base.iterdir():
            if file.suffix in (".json", ".safetensors", ".txt"):
                (target / file.name).write_bytes(file.read_bytes())
        print(f"{base} has them already: it is copied as it is")
        return
    model, processor = load_system(base)
    labels = labelled(data)
    own = sorted(set(labels.values()))
    wanted = torch.tensor([own.index(label) for label in labels.values()])
    tower_config = copy.deepcopy(settings.vision_config)
    tower_config.class_grids = GRIDS
    tower = vision_of_part(vision_folder(settings), tower_config, torch.float32).eval()
    seen = features(tower, source, list(labels), processor.image_processor)
    classifier = fitted(seen, wanted, len(own))

    weights = read_trained(base)
    old, bias = weights["projection.weight"], weights["projection.bias"].float()
    words = model.get_input_embeddings().weight.detach().float()
    names = (
        dict.fromkeys(range(1000), NONE) | names_of_classes(source) | {1000 + number: name for number, name in enumerate(own)}
    )
    columns = torch.zeros(len(bias), TOKENS, 1000 + len(own))
    for number, name in names.items():
        ids = processor.tokenizer.encode(f" {name}", add_special_tokens=False)
        last = ids[-1] if len(ids) > 1 else processor.tokenizer.encode(",", add_special_tokens=False)[0]
        for place, token in enumerate((ids[0], last)):
            columns[:, place, number] = words[token] - bias  # probabilities add up to one
    weights["projection.weight"] = torch.cat([old.float(), columns.flatten(1)], 1)
    weights |= {"connector.own.weight": classifier.weight.detach(), "connector.own.bias": classifier.bias.detach()}
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    config |= {"class_tokens": TOKENS, "own_classes": len(own)}
    config["vision_config"]["class_grids"] = GRIDS
    for file in base.iterdir():
        if file.suffix == ".json":
            (target / file.name).write_bytes(file.read_bytes())
    (target / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    processor.num_image_tokens += TOKENS * (sum(n * n for n in GRIDS) + 1)
    processor.to_json_file(target / "processor_config.json")
    (target / "own_classes.txt").write_text("\n".join(own) + "\n", encoding="utf-8")
    save_file(weights, target / "trained.safetensors", metadata={"format": "pt"})


def labelled(data: Path) -> dict[str, str]:
    """Of each image that is looked at its class."""
    found: dict[str, str] = {}
    for line in (data / "naming.train.jsonl").open(encoding="utf-8"):
        row = json.loads(line)
        if row.get("task") == "vqa" and row["image"].split("/")[0] in KINDS + NAMED and row["answer"] not in NO_NAMES:
            found.setdefault(row["image"], row["answer"])
    often = Counter(name for image, name in found.items() if image.split("/")[0] in KINDS)
    classes = {name for name, n in often.items() if n >= LEAST}
    found |= people(data)
    classes |= set(PEOPLE)

    def looked_at(image: str) -> bool:
        return (
            image.split("/")[0] in KINDS
            or zlib.crc32(image.encode()) % FEWEST_SHARE == 0
            or found[image] in classes - set(PEOPLE)
        )

    return {image: name if name in classes else NONE for image, name in found.items() if looked_at(image)}


def people(data: Path) -> Iterator[tuple[str, str]]:
    """Of photographs with captions the kind of person that most captions speak of."""
    for line in (data / "captions.train.jsonl").open(encoding="utf-8"):
        row = json.loads(line)
        said = [set(re.findall("[a-z]+", caption.lower())) for caption in row["answers"]]
        counts = {kind: sum(bool(words & set(of.split())) for words in said) for kind, of in PEOPLE.items()}
        kind = max(counts, key=lambda each: counts[each])
        if counts[kind] >= 3 or not any(counts.values()):
            yield row["image"], kind if counts[kind] else NONE


@torch.no_grad()
def features(tower, source: Path, images: list[str], image_processor) -> torch.Tensor:
    """What the vision encoder's classifier goes by: (images, channels)."""
    found = []
    for number, image in enumerate(images):
        found.append(tower(image_processor(source / image)["pixel_values"]).last_hidden_state[:, 0])
        if number % 500 == 0:
            print(f"{number:6,} of {len(images):,} images", flush=True)
    return torch.cat(found)


def fitted(x: torch.Tensor, y: torch.Tensor, classes: int) -> torch.nn.Linear:
    """Multinomial regression; how much its weights are held small is chosen on every tenth image."""
    mean, spread = x.mean(0), x.std(0) + 1e-3
    scaled, held = (x - mean) / spread, torch.arange(len(x)) % 10 == 0

    def fit(x: torch.Tensor, y: torch.Tensor, decay: float) -> torch.nn.Linear:
        linear = torch.nn.Linear(x.shape[1], classes)
        torch.nn.init.zeros_(linear.weight)
        optimizer = torch.optim.LBFGS(linear.parameters(), max_iter=200, line_search_fn="strong_wolfe")

        def loss() -> torch.Tensor:
            optimizer.zero_grad()
            value = F.cross_entropy(linear(x), y) + decay * linear.weight.square().sum()
            value.backward()
            return value

        optimizer.step(loss)
        return linear

    measured = {}
    for decay in (3e-4, 1e-3, 3e-3, 1e-2):
        scores = fit(scaled[~held], y[~held], decay)(scaled[held])
        measured[decay] = F.cross_entropy(scores, y[held]).item()
        right = (scores.argmax(-1) == y[held]).float().mean()
        print(f"decay {decay}: loss {measured[decay]:.3f}, {100 * right:.1f} % right of {int(held.sum())}", flush=True)
    linear = fit(scaled, y, min(measured, key=lambda each: measured[each]))
    with torch.no_grad():  # of features as they are
        linear.weight /= spread
        linear.bias -= linear.weight @ mean
    return linear


if __name__ == "__main__":
    main()
