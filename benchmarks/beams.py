"""Beam search that reads each prompt once, beside `transformers`' own, which reads it once a beam: pictures a second.

python benchmarks/beams.py FOLDER [--limit 48] [--beams 3 5] [--batch 16] [--dtype float32]
"""

import argparse
import time
from pathlib import Path

import torch

import minigpt4
from minigpt4.media.images import images_in
from minigpt4.prompt.templates import with_images

QUESTION = "[caption] Briefly describe this image."


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--limit", type=int, default=48)
    parser.add_argument("--beams", type=int, nargs="+", default=[3, 5])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--dtype", default="float32")
    given = parser.parse_args()
    images = images_in([given.folder])[: given.limit]
    system = minigpt4.load(dtype=given.dtype)
    model, settings = system.model, {"max_new_tokens": 40}
    conversation = [{"role": "user", "content": with_images(QUESTION, 1)}]
    embeds = torch.cat([system.encode([image]) for image in images]).split(given.batch)
    batches = [(system.inputs([conversation] * len(part), settings), part) for part in embeds]
    ways = {
        "read once": lambda inputs, part, **how: model.generate(**inputs, image_embeds=part, **how),
        "read once a beam": lambda inputs, part, **how: model.language_model.generate(
            inputs_embeds=model.embed(inputs["input_ids"], part),
            attention_mask=inputs["attention_mask"],
            eos_token_id=model.generation_config.eos_token_id,
            pad_token_id=model.generation_config.pad_token_id,
            **how,
        ),
    }
    print(f"{len(images)} pictures, vision encoder not counted\n")
    print(f"| beams | {' | '.join(ways)} | captions that differ |\n|---|---|---|---|")
    for beams in given.beams:
        said, speed = [], []
        for way in ways.values():
            way(*batches[0], num_beams=beams, max_new_tokens=2)
            begun = time.perf_counter()
            ids = [row for inputs, part in batches for row in way(inputs, part, num_beams=beams, **settings)]
            speed.append(len(images) / (time.perf_counter() - begun))
            said.append(system.processor.tokenizer.batch_decode(ids, skip_special_tokens=True))
        differ = sum(one != other for one, other in zip(*said, strict=True))
        print(f"| {beams} | {speed[0]:.2f} | {speed[1]:.2f} | {differ} |", flush=True)


if __name__ == "__main__":
    main()
