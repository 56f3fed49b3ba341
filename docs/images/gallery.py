"""Asks the pocket model for what made MiniGPT-4 known and writes down what it says, as it comes: python docs/images/gallery.py

Writes docs/gallery.md. Nothing is chosen: each photograph of this folder, each request, the first answer.
"""

from pathlib import Path

import minigpt4

HERE = Path(__file__).parent
PHOTOS = {"cat": "a cat", "astronaut": "an astronaut", "china": "a temple in China", "camera": "a photographer at work"}
REQUESTS = (
    "[caption] Briefly describe this image.",
    "Describe this image in detail.",
    "Can you craft a beautiful poem about this image?",
    "Tell me a short story about this image.",
    "Help me draft a professional advertisement for this.",
    "Explain why this image is funny.",
    "What could happen next?",
    "What should I do here?",
    "Who might like this?",
)
TALKS = {"cat": ("What animal is this?", "Write a poem about it."), "china": ("What is in this picture?", "Who might like it?")}


def quoted(text: str) -> str:
    return "<br>".join(text.strip().splitlines()).replace("|", "\\|")


def main() -> None:
    model = minigpt4.load()
    lines = ["# What the pocket model says", ""]
    lines += ["Made by `docs/images/gallery.py`: the requests of the papers, the first answer to each, right or wrong.", ""]
    for name, what in PHOTOS.items():
        photo = HERE / f"{name}.jpg"
        lines += [f"## {what[:1].upper()}{what[1:]}", "", f'<img src="images/{name}.jpg" alt="{what}" width="240">', ""]
        lines += ["| asked | said |", "|---|---|"]
        lines += [f"| {request} | {quoted(str(model.ask(photo, request)))} |" for request in REQUESTS]
        if name in TALKS:
            chat = model.chat(photo)
            lines += ["", "In a conversation:", "", "| asked | said |", "|---|---|"]
            lines += [f"| {turn} | {quoted(str(chat.ask(turn)))} |" for turn in TALKS[name]]
        lines += [""]
    (HERE.parent / "gallery.md").write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
