"""Generated pictures with known contents: one coloured shape in one of four places."""

import json
import random
from pathlib import Path

from PIL import Image, ImageDraw

COLOURS = {"red": (220, 30, 30), "green": (30, 180, 30), "blue": (40, 60, 230), "white": (245, 245, 245)}
SHAPES = ("disc", "box")
PLACES = {"top left": (0, 0), "top right": (1, 0), "bottom left": (0, 1), "bottom right": (1, 1)}


def draw(colour: str, shape: str, place: str, rng: random.Random, size: int = 32) -> Image.Image:
    """A picture of one thing; its exact place within its quarter and the background's grey vary."""
    grey = rng.randint(90, 130)
    image = Image.new("RGB", (size, size), (grey, grey, grey))
    half = size // 2
    left = PLACES[place][0] * half + rng.randint(1, 3)
    top = PLACES[place][1] * half + rng.randint(1, 3)
    where = (left, top, left + half - 5, top + half - 5)
    pen = ImageDraw.Draw(image)
    (pen.ellipse if shape == "disc" else pen.rectangle)(where, fill=COLOURS[colour])
    return image


def things(number: int, seed: int = 0) -> list[tuple[str, str, str]]:
    """(colour, shape, place) of `number` pictures."""
    rng = random.Random(seed)
    return [(rng.choice(list(COLOURS)), rng.choice(SHAPES), rng.choice(list(PLACES))) for _ in range(number)]


def write(folder: Path, number: int, seed: int = 0, name: str = "shapes") -> Path:
    """Pictures and a JSON Lines file of captions and questions about them; returns the file."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    rng = random.Random(seed)
    for i, (colour, shape, place) in enumerate(things(number, seed)):
        file = f"{name}-{i}.png"
        draw(colour, shape, place, rng).save(folder / file)
        rows.append({"image": file, "task": "caption", "answers": [f"{colour} {shape}", f"{colour} {shape} {place}"]})
        rows.append({"image": file, "question": "colour?", "answer": colour, "task": "vqa"})
        rows.append({"image": file, "question": "where?", "answer": place})
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
