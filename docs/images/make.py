"""Makes the picture of the README out of what the pocket model really says: python docs/images/make.py"""

from pathlib import Path
from textwrap import wrap

from PIL import Image, ImageDraw, ImageFont

import minigpt4

HERE = Path(__file__).parent
ASKED = [("astronaut.jpg", "What is in this picture?"), ("cat.jpg", "What is in this picture?")]
WIDTH, SIDE, GAP = 1100, 240, 24
DARK, LIGHT, DIM, GREEN = (24, 26, 31), (235, 235, 235), (150, 155, 165), (120, 200, 130)


def main() -> None:
    model = minigpt4.load()
    demo(model).save(HERE / "demo.png", optimize=True)


def demo(model: minigpt4.Assistant) -> Image.Image:
    """Photos beside what is typed and what is answered."""
    canvas = Image.new("RGB", (WIDTH, GAP + len(ASKED) * (SIDE + GAP)), DARK)
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(22)
    for i, (name, question) in enumerate(ASKED):
        top = GAP + i * (SIDE + GAP)
        with Image.open(HERE / name) as photo:
            photo.thumbnail((320, SIDE))
            canvas.paste(photo, (GAP + (320 - photo.width) // 2, top))
        lines = [(GREEN, f'$ ./run ask {name} "{question}"')]
        lines += [(LIGHT, line) for line in wrap(model.ask(HERE / name, question), 62)]
        for row, (colour, line) in enumerate(lines):
            draw.text((320 + 2 * GAP, top + 16 + row * 34), line, colour, font)
    return canvas


if __name__ == "__main__":
    main()
