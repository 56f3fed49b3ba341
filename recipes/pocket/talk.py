"""Writes answers to free requests about images, from people's captions (self-distillation).

    python recipes/pocket/talk.py data/pocket data/pocket/talk.jsonl --limit 3000

The writer is the pocket model's own language model as it came (SmolLM2-135M-Instruct). It reads captions as text, never the
image,
and is asked for a poem, a story, an advertisement and so on. Rules throw away what is a loop, a fragment, a contradiction of
the
captions, or speaks of captions. What is left is a row "image, question, answer". Text-only rows are written the same way from
`recipes/pocket/text_questions.txt`. The file grows row by row; started again, it goes on where it stopped.
"""

import argparse
import json
import random
import re
import sys
import time
import zlib
from itertools import islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from annotations import THINGS

KINDS: dict[str, tuple[str, tuple[str, ...]]] = {
    # kind: (what the writer is told, what the model is asked)
    "poem": (
        "Write a short poem of four lines about this scene. Name what is in it.",
        (
            "Can you craft a beautiful poem about this image?",
            "Write a poem about this picture.",
            "Write a short poem about this photo.",
            "Make a little poem out of what you see.",
            "Compose a poem inspired by this image.",
            "Could you write me some verses about this?",
            "A poem about this image, please.",
            "Turn this picture into a poem.",
        ),
    ),
    "story": (
        "Tell a very short story of three or four sentences about this scene.",
        (
            "Tell me a short story about this image.",
            "Write a short story about this picture.",
            "Make up a story about this photo.",
            "What story could this image tell?",
            "Invent a little story about what you see here.",
            "Can you tell me a story about this?",
            "Write a tale that begins with this scene.",
        ),
    ),
    "advertisement": (
        "Write a short professional advertisement of three sentences that uses a photograph of this scene.",
        (
            "Help me draft a professional advertisement for this.",
            "Write an advertisement for this.",
            "Write a slogan and a short ad for this picture.",
            "How would you advertise this?",
            "Draft a product advertisement with this image.",
            "Make a short commercial text for this photo.",
            "I want to sell this. What should the ad say?",
        ),
    ),
    "funny": (
        "Explain in two or three sentences what is funny or amusing about this scene.",
        (
            "Explain why this image is funny.",
            "Why is this picture funny?",
            "What is amusing about this photo?",
            "What is the joke here?",
            "Can you explain what makes this image funny?",
            "Why might people laugh at this?",
        ),
    ),
    "next": (
        "Say in two or three sentences what could happen next in this scene.",
        (
            "What could happen next?",
            "What do you think will happen next?",
            "What might happen after this picture was taken?",
            "How does this go on?",
        ),
    ),
    "advice": (
        "Say in two or three sentences what somebody in this scene should do, and look out for.",
        (
            "What should I do here?",
            "What should I do if I were there?",
            "Do you have any advice for someone in this situation?",
            "What should one be careful about here?",
        ),
    ),
    "who": (
        "Say in two or three sentences who might like this scene, and why.",
        (
            "Who might like this?",
            "Who would enjoy this, and why?",
            "What kind of person would like this image?",
            "For whom would this be interesting?",
        ),
    ),
    "describe": (
        "Describe this scene in detail in three or four sentences. Do not invent things.",
        (
            "Describe this image in detail.",
            "Please provide a detailed description of the picture.",
            "Tell me everything that you see in this photo.",
            "Take a look at this image and describe what you notice.",
            "Could you describe the contents of this image for me?",
            "What is going on in this picture? Please explain.",
            "Give a detailed account of this image.",
            "Explain this image to someone who cannot see it.",
        ),
    ),
    "mood": (
        "Describe the mood and feeling of this scene in two or three sentences.",
        ("What is the mood of this image?", "What feeling does this picture give you?", "How does this scene feel?"),
    ),
    "make": (
        "Explain in three or four short sentences how this dish is made.",
        ("How do I make this?", "How can I cook this?", "Give me a recipe for this.", "Tell me how to prepare this dish."),
    ),
}
WEIGHTS = {"poem": 5, "story": 5, "advertisement": 5, "funny": 5, "next": 2, "advice": 2, "who": 2, "describe": 3, "mood": 1}

BEGINNINGS: dict[str, tuple[str, ...]] = {
    # {} is a caption without its capital and full stop: the writer goes on after it, so that its answer keeps to the image
    "story": ("Once upon a time, {}.", "One day, {}.", "It was a quiet afternoon, and {}.", "It all began when {}.", "{}."),
    "advertisement": ("Imagine this: {}.", "Picture this: {}.", "{}? This is for you!", "Every moment counts, and here {}."),
    "funny": (
        "This image is funny because {}.",
        "What makes this amusing is that {}.",
        "It is amusing because {}.",
        "The joke is that {}.",
    ),
    "next": ("Right now, {}. Next,", "In this image {}. Soon,", "Since {}, it is likely that"),
    "advice": ("Here {}. You should", "In this situation {}, so you should", "Since {}, be careful to"),
    "who": ("In this image {}. People who", "Since {}, this might appeal to people who"),
    "mood": ("In this image {}. The mood is",),
    "describe": ("In this image, {}.", "The image shows that {}.", "{}."),
    "poem": ("", "", "", "{},\n"),
}

STOP = set(
    "a an the of in on at to with and is are it its his her their this that for from by as two three one some there "
    "man woman people "
    "person image picture photo has have while very them they who into out over up down near other another".split()
)
GROUPS = [frozenset(group.split()) for group in THINGS]
FORBIDDEN = re.compile(
    r"\bcaptions?\b|\bscene described\b|\bas an ai\b|\bi'm sorry\b|\bi cannot\b|"
    r"\bhere(?:'s| is| are) (?:a|an|the|some|three|two|four)\b|"
    r"\bprompt\b|\bdescription\b|\bsentences?\b|\btext\b|\bprovided\b|https?:|\[|\]|\{|\}|<|>|\*\*|\bhashtag|#|\bvideo\b|\bparagraph\b",
    re.IGNORECASE,
)
SAFE = frozenset(
    "grass grassy field lawn yard park water ocean lake river sea pool wave waves beach tree trees forest woods street road "
    "sidewalk city mountain mountains cliff rock rocks person people child children male female swing seat cap".split()
)


def words_of(text: str) -> list[str]:
    return re.findall(r"[a-z']+", text.lower())


def finished(text: str) -> str:
    """The text up to its last finished sentence, or for verses the last whole line."""
    text = re.sub(r"[ \t]+", " ", text.replace("\u201c", '"').replace("\u201d", '"').replace("\u2019", "'")).strip()
    text = re.sub(r"^(?:sure|certainly|of course)[,!.:][^\n]*\n+", "", text, flags=re.IGNORECASE)
    text = re.sub(r"^(?:title|headline|slogan|poem|story|ad(?:vertisement)?)\s*:\s*", "", text, flags=re.IGNORECASE)
    text = re.sub(r"\n{2,}", "\n", text)
    end = max(text.rfind(mark) for mark in (".", "!", "?"))
    text = text[: end + 1] if end >= 0 else ""
    return text + '"' if text.count('"') % 2 else text


def fault(answer: str, captions: list[str] | None) -> str | None:
    """Why an answer is not used, or None."""
    words = words_of(answer)
    if not 20 <= len(words) <= 110:
        return "length"
    if FORBIDDEN.search(answer):
        return "forbidden"
    grams = [tuple(words[i : i + 4]) for i in range(len(words) - 3)]
    if len(set(grams)) < 0.92 * len(grams) or len(set(words)) < 0.5 * len(words):
        return "loop"
    lines = [line for line in re.split(r"(?<=[.!?])\s+|\n", answer.lower()) if line]
    if len(set(lines)) < len(lines):
        return "loop"
    if captions is None:
        return None
    known = set(words_of(" ".join(captions)))
    if len(set(words) & (known - STOP)) < min(3, len(known - STOP)):
        return "off topic"
    for group in GROUPS:
        if (set(words) & group) - SAFE and not known & group:
            return "contradiction"
    return None


def two_of(captions: list[str], rng: random.Random) -> list[str]:
    """Two or three captions that say much, in random order."""
    long = sorted(captions, key=lambda text: -len(set(words_of(text)) - STOP))[:3]
    rng.shuffle(long)
    return long


def jobs(source: Path, seed: int):
    """(row, what the writer reads, captions, how its answer begins) for one request an image, in random order, without end."""
    rng = random.Random(seed)
    images = []
    for name in ("captions.train.jsonl", "world_captions.train.jsonl"):
        path = source / name
        if path.exists():
            for line in path.open(encoding="utf-8"):
                row = json.loads(line)
                if name.startswith("captions") and zlib.crc32(row["image"].encode()) % 5 > 1:
                    continue  # two fifths of Flickr8k: people and dogs are a part of the world
                what, captions = (row.get("extra") or {}).get("kind", ""), row["answers"]
                if what and what not in ("food", "coco"):  # a class name, not a caption: a third of them are enough
                    if zlib.crc32(row["image"].encode()) % 3:
                        continue
                    thing = re.sub(
                        r"^(?:A photo of|A close up of|A picture of|There is|The inside of) | (?:is )?in the .*|\.$",
                        "",
                        captions[0],
                    )
                    captions = [f"There is {thing[:1].lower()}{thing[1:]} here."]
                images.append((row["image"], captions, what))
    texts = (Path(__file__).parent / "text_questions.txt").read_text(encoding="utf-8").splitlines()
    while True:
        rng.shuffle(images)
        for image, captions, what in images:
            if rng.random() < 0.3:
                question = rng.choice(texts)
                yield {"question": question}, question, None, ""
            kind = "make" if what == "food" and rng.random() < 0.35 else rng.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
            told, asked = KINDS[kind]
            chosen = two_of(captions, rng)
            scene = " ".join(chosen)
            first = chosen[0].rstrip(".")
            begin = rng.choice(BEGINNINGS.get(kind, ("",)))
            begin = begin.format(first if begin.startswith("{}") else first[:1].lower() + first[1:]) if " " in first else ""
            yield (
                {"image": image, "question": rng.choice(asked), "extra": {"kind": kind}},
                f"A scene: {scene}\n\n{told}",
                captions,
                begin,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--limit", type=int, default=3000, help="good answers to stop at")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--batch", type=int, default=48)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    done = sum(1 for _ in given.target.open(encoding="utf-8")) if given.target.exists() else 0
    if done < given.limit:
        write(given, done)


def write(given: argparse.Namespace, done: int) -> None:
    """Adds answers to the file until there are enough, or the time is over."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from minigpt4.checkpoints.pocket import prepared

    folder = prepared() / "llm"
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    torch.manual_seed(given.seed + done)
    began, faults, tried = time.time(), {}, 0
    stream = jobs(given.source, given.seed + done)
    with given.target.open("a", encoding="utf-8") as file:
        while batch := list(islice(stream, given.batch)):
            prompts = [
                tokenizer.apply_chat_template([{"role": "user", "content": told}], tokenize=False, add_generation_prompt=True)
                + begin
                for _, told, _, begin in batch
            ]
            inputs = tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=False)
            with torch.inference_mode():
                out = model.generate(
                    **inputs,
                    max_new_tokens=60,
                    do_sample=True,
                    temperature=0.6,
                    top_p=0.9,
                    repetition_penalty=1.05,
                    pad_token_id=tokenizer.pad_token_id,
                )
            for (row, _, captions, begin), ids in zip(batch, out[:, inputs["input_ids"].shape[1] :], strict=True):
                answer = finished(begin + tokenizer.decode(ids, skip_special_tokens=True))
                tried += 1
                if (why := fault(answer, captions)) is None:
                    file.write(json.dumps({**row, "answer": answer}, ensure_ascii=False) + "\n")
                    done += 1
                else:
                    faults[why] = faults.get(why, 0) + 1
            file.flush()
            print(f"{done} good of {tried}, {time.time() - began:.0f} s, thrown away {faults}", flush=True)
            if done >= given.limit or time.time() - began > 60 * given.minutes:
                break


if __name__ == "__main__":
    main()
