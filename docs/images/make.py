"""Makes the pictures of the README out of what the pocket model really says: python docs/images/make.py"""

from pathlib import Path
from textwrap import wrap

from PIL import Image, ImageDraw, ImageFont

import minigpt4

HERE = Path(__file__).parent
PHOTO = HERE / "cat.jpg"
QUESTION = "What is in this picture?"
REQUEST = "Tell me a short story about this image."
WIDTH, HEIGHT, GAP = 1100, 412, 24
DARK, LIGHT, GREEN = (24, 26, 31), (235, 235, 235), (120, 200, 130)


def main() -> None:
    model = minigpt4.load()
    lines = [(GREEN, f'$ ./run ask {PHOTO.name} "{QUESTION}"'), (LIGHT, model.ask(PHOTO, QUESTION)), (LIGHT, "")]
    lines += [(GREEN, f'$ ./run ask {PHOTO.name} "{REQUEST}"'), (LIGHT, model.ask(PHOTO, REQUEST))]
    canvas = Image.new("RGB", (WIDTH, HEIGHT), DARK)
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(24)
    with Image.open(PHOTO) as photo:
        photo.thumbnail((HEIGHT - 2 * GAP, HEIGHT - 2 * GAP))
        canvas.paste(photo, (GAP, GAP))
    top = GAP + 40
    for colour, text in lines:
        for line in [part for verse in text.split("\n") for part in wrap(verse, 58)] or [""]:
            draw.text((HEIGHT + GAP, top), line, colour, font)
            top += 40
    canvas.save(HERE / "demo.png", optimize=True)
    point(model)


def point(model: minigpt4.Assistant) -> None:
    """Three photographs with what was found in them."""
    for name, answer in (
        ("refer", model.refer(HERE / "astronaut.jpg", "the woman")),
        ("detect", model.detect(HERE / "camera.jpg", "people")),
        ("ground", model.ground(HERE / "camera.jpg")),
    ):
        print(f"{name}: {answer}")
        answer.draw().save(HERE / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
