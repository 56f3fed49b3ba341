"""Adds image tokens that name what a classifier sees to a system with the pocket's vision encoder.

    python recipes/pocket/classes.py FROM data/pocket SYSTEM runs/named labelled
    python recipes/pocket/classes.py FROM data/pocket SYSTEM runs/things things

The vision encoder's own classifier gives 1,000 probabilities for the whole image and for each of its quarters. Two more are
fitted here to the same features of the whole image (multinomial regression), each by a call of its own:

- labelled: kinds that photographs of data/pocket are labelled with and ImageNet has no class for, one an image: dishes,
  groceries, rooms, clothes, scenes, who is there; and "none of these". The 1,000 come with it;
- things: what is seen together in COCO's photographs, as `things.py` knows it from questions, statements, boxes and captions:
  several an image, with a share of the probability each.

Each list of probabilities becomes two image tokens. The projection's columns for a class begin as word embeddings of the
class's everyday name: its first and its last token, or a comma for the second where there is only one. So the language model
reads a name that it has never been taught, and training goes on from there. The rest of the system is as it was, and one that
has the list is copied as it is.
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
from hold import held_out
from seen import names_of_classes
from things import gathered, things_in
from world import is_dev

GRIDS, TOKENS = [1, 2], 2
LISTS = ("labelled", "things")
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
"""Photographs that a class has at least; and one of how many of `NAMED` and of flickr8k are looked at."""


def main() -> None:
    if len(sys.argv) != 6:
        sys.exit(__doc__)
    source, data, base, target = Path(sys.argv[1]), Path(sys.argv[2]), find_folder(sys.argv[3]), Path(sys.argv[4])
    number = LISTS.index(sys.argv[5])
    settings = read_config(base)
    target.mkdir(parents=True, exist_ok=True)
    has_it = len(settings.own_lists) > number
    for file in base.iterdir():
        if file.suffix in (".json", ".txt") or (file.suffix == ".safetensors" and has_it):
            (target / file.name).write_bytes(file.read_bytes())
    if has_it:
        print(f"{base} has a list of its own of what is {LISTS[number]} already: it is copied as it is")
        return
    if len(settings.own_lists) < number:
        raise SystemExit(f"{base} has no list of what is {LISTS[0]} yet: it comes first")
    shares = things(source, data) if number else {image: {name: 1.0} for image, name in labelled(data).items()}
    own = sorted({name for of_image in shares.values() for name in of_image})
    wanted = torch.tensor([[of_image.get(name, 0.0) for name in own] for of_image in shares.values()])
    model, processor = load_system(base)
    if settings.class_tokens:
        tower = model.vision_tower.eval()
    else:
        tower_config = copy.deepcopy(settings.vision_config)
        tower_config.class_grids = GRIDS
        tower = vision_of_part(vision_folder(settings), tower_config, torch.float32).eval()
    classifier = fitted(features(tower, source, list(shares), processor.image_processor), wanted)

    weights = read_trained(base)
    for name, tensor in (("weight", classifier.weight), ("bias", classifier.bias)):
        before = [weights[f"connector.own.{name}"].float()] if number else []
        weights[f"connector.own.{name}"] = torch.cat([*before, tensor.detach()])
    old, bias = weights["projection.weight"].float(), weights["projection.bias"].float()
    wide = old.shape[1] - settings.class_channels
    words = model.get_input_embeddings().weight.detach().float()
    known = settings.num_classes if number else 1000
    names = {} if number else dict.fromkeys(range(1000), NONE) | names_of_classes(source)
    columns = torch.zeros(len(bias), TOKENS, known + len(own))
    if number:
        columns[:, :, :known] = old[:, wide:].unflatten(1, (TOKENS, known))
    for place_of, name in (names | {known + place: name for place, name in enumerate(own)}).items():
        ids = processor.tokenizer.encode(f" {name}", add_special_tokens=False)
        last = ids[-1] if len(ids) > 1 else processor.tokenizer.encode(",", add_special_tokens=False)[0]
        for place, token in enumerate((ids[0], last)):
            columns[:, place, place_of] = words[token] - bias  # probabilities add up to one
    weights["projection.weight"] = torch.cat([old[:, :wide], columns.flatten(1)], 1)
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    config |= {"class_tokens": TOKENS, "own_classes": [*settings.own_lists, len(own)]}
    config["vision_config"]["class_grids"] = GRIDS
    (target / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    lists = len(settings.own_lists) + 1 + sum(n * n for n in GRIDS)
    processor.num_image_tokens += TOKENS * (lists - settings.num_class_lists)
    processor.to_json_file(target / "processor_config.json")
    (target / f"classes_{LISTS[number]}.txt").write_text("\n".join(own) + "\n", encoding="utf-8")
    save_file(weights, target / "trained.safetensors", metadata={"format": "pt"})


def things(source: Path, data: Path) -> dict[str, dict[str, float]]:
    """Of each of COCO's photographs that is known something of, and not held out, its things, with equal shares."""
    held, found = held_out(source), {}
    for image, known in gathered(source, data).items():
        if not is_dev(image) and image not in held:
            found[image] = {name for name in known.things if name not in known.absent}
    for line in (data / "coco_captions.train.jsonl").open(encoding="utf-8"):
        row = json.loads(line)
        said = Counter(name for caption in row["answers"] for name in set(things_in(caption)))
        found.setdefault(row["image"], set()).update(name for name, n in said.items() if n >= 2)
    often = Counter(name for names in found.values() for name in names)
    known_often = {image: sorted(name for name in names if often[name] >= LEAST) for image, names in found.items()}
    return {image: dict.fromkeys(names, 1 / len(names)) for image, names in sorted(known_often.items()) if names}


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


def fitted(x: torch.Tensor, shares: torch.Tensor) -> torch.nn.Linear:
    """Multinomial regression; how much its weights are held small is chosen on every tenth image."""
    mean, spread = x.mean(0), x.std(0) + 1e-3
    scaled, held = (x - mean) / spread, torch.arange(len(x)) % 10 == 0

    def fit(x: torch.Tensor, shares: torch.Tensor, decay: float) -> torch.nn.Linear:
        linear = torch.nn.Linear(x.shape[1], shares.shape[1])
        torch.nn.init.zeros_(linear.weight)
        optimizer = torch.optim.LBFGS(linear.parameters(), max_iter=200, line_search_fn="strong_wolfe")

        def loss() -> torch.Tensor:
            optimizer.zero_grad()
            value = F.cross_entropy(linear(x), shares) + decay * linear.weight.square().sum()
            value.backward()
            return value

        optimizer.step(loss)
        return linear

    measured = {}
    for decay in (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1):
        scores = fit(scaled[~held], shares[~held], decay)(scaled[held])
        measured[decay] = F.cross_entropy(scores, shares[held]).item()
        right = (shares[held].gather(1, scores.argmax(-1, keepdim=True)) > 0).float().mean()
        print(f"decay {decay}: loss {measured[decay]:.3f}, {100 * right:.1f} % right of {int(held.sum())}", flush=True)
    linear = fit(scaled, shares, min(measured, key=lambda each: measured[each]))
    with torch.no_grad():  # of features as they are
        linear.weight /= spread
        linear.bias -= linear.weight @ mean
    return linear


if __name__ == "__main__":
    main()
