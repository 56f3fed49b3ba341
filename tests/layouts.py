"""The datasets that the shipped recipes name, in their official layouts, with one or two tiny items each."""

import io
import json
import pickle
import tarfile
from pathlib import Path

from PIL import Image

MARKED = "<p>Two dogs</p> {<1><2><30><40>}<delim>{<5><6><70><80>} play in <p>the snow</p> {<0><0><99><99>}."
COCO = "COCO_train2014_000000000033.jpg"
TALK = [
    {"from": "human", "value": "<image>\nWhat is this?"},
    {"from": "gpt", "value": "A dog."},
    {"from": "human", "value": "Where?"},
    {"from": "gpt", "value": "In the snow."},
]
REFS = [{"ref_id": 5, "ann_id": 50, "category_id": 1, "image_id": 33, "split": "train", "sentences": [{"raw": "the left dog"}]}]
INSTANCES = {
    "images": [{"id": 33, "file_name": COCO}],
    "annotations": [{"id": 50, "image_id": 33, "bbox": [4, 4, 20, 30]}],
    "categories": [{"id": 1, "name": "dog"}],
}


def write_all(root: Path) -> None:
    """Everything under ``root/data`` that a recipe of the papers reads."""
    data = root / "data"
    for name in (
        f"coco/train2014/{COCO}",
        f"coco/images/{COCO}",
        "flickr30k/images/1001.jpg",
        "gqa/images/2.jpg",
        "ocrvqa/images/b1.jpg",
        "textcaps/train_images/abc1.jpg",
        "visual_genome/VG_100K_2/7.jpg",
        "cc_sbu_align/image/2.jpg",
    ):
        path = data / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 48), "brown").save(path)
    llava = [{"id": "000000000033", "image": COCO, "conversations": TALK}]
    question = {"image": f"train2014/{COCO}", "question": "What runs?", "question_id": 1, "answer": ["a dog"] * 10}
    region = {"region_id": 1, "image_id": 7, "x": 1, "y": 2, "width": 30, "height": 20, "phrase": "a plate"}
    files = {
        "cc_sbu_align/filter_cap.json": {"annotations": [{"image_id": "2", "caption": "A brown wall."}]},
        "multitask_conversation/multi_task_conversation.json": llava,
        "llava/conversation_58k.json": llava,
        "llava/detail_23k.json": llava,
        "llava/complex_reasoning_77k.json": llava,
        "unnatural_instructions/filtered_unnatural_instruction.json": [
            {"instances": [{"instruction_with_input": "Say a.", "constraints": None, "output": "a"}]}
        ],
        "visual_genome/region_descriptions.json": [{"id": 7, "regions": [region]}],
        "visual_genome/image_data.json": [
            {"image_id": 7, "url": "https://x.org/rak248/VG_100K_2/7.jpg", "width": 64, "height": 48}
        ],
        "flickr30k/groundedcaption.json": [{"image_id": "1001", "grounded_caption": MARKED}],
        "flickr30k/captiontobbox.json": [{"image_id": "1001", "caption": "Two dogs play.", "output": MARKED}],
        "flickr30k/phrasetobbox.json": [{"image_id": "1001", "phrase": "Two dogs", "bbox": "{<1><2><30><40>}"}],
        "coco_captions/coco_karpathy_train.json": [{"image": f"train2014/{COCO}", "caption": "A dog.", "image_id": "coco_33"}],
        "textcaps/TextCaps_0.1_train.json": {"data": [{"image_id": "abc1", "caption_str": "A sign."}]},
        "vqav2/vqa_train.json": [question],
        "vqav2/vqa_val.json": [question],
        "okvqa/okvqa_train.json": [question],
        "aokvqa/aokvqa_v1p0_train.json": [
            {"image": COCO, "question": "What runs?", "question_id": "q", "direct_answers": ["dog"] * 10}
        ],
        "gqa/train_balanced_questions.json": [{"image": "2.jpg", "question": "Is it wood?", "answer": "no"}],
        "ocrvqa/dataset.json": {
            "b1": {"imageURL": "http://x/b1.jpg", "questions": ["Who?"], "answers": ["J. Doe"], "split": 1, "title": "T"}
        },
    }
    for corpus, refs in (("refcoco", "refs(unc).p"), ("refcoco+", "refs(unc).p"), ("refcocog", "refs(umd).p")):
        files[f"refcoco/{corpus}/instances.json"] = INSTANCES
        (data / f"refcoco/{corpus}").mkdir(parents=True)
        (data / f"refcoco/{corpus}/{refs}").write_bytes(pickle.dumps(REFS, protocol=2))
    for name, content in files.items():
        path = data / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
    for name in ("laion/laion_dataset/00000.tar", "cc_sbu/cc_sbu_dataset/00000.tar"):
        write_tar(data / name, [("A dog runs.", "red"), ("A cat sleeps.", "green"), ("A car.", "blue")])
    write_pocket(data)


def write_tar(path: Path, pairs: list[tuple[str, str]]) -> None:
    """Web captions as img2dataset leaves them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for i, (caption, colour) in enumerate(pairs):
            image = io.BytesIO()
            Image.new("RGB", (32, 32), colour).save(image, "JPEG")
            for ending, content in (("jpg", image.getvalue()), ("json", json.dumps({"caption": caption}).encode())):
                member = tarfile.TarInfo(f"{i:09d}.{ending}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


def write_pocket(data: Path) -> None:
    """The files that recipes/pocket/annotations.py makes, and own_data's folder beside."""
    Image.new("RGB", (32, 32), "navy").save(data / "x.jpg")
    one = {"image": "x.jpg"}
    rows = {
        "captions": [one | {"answers": ["A wall.", "A blue wall."]}],
        "coco_captions": [one | {"answers": ["A wall."]}],
        "describe": [one | {"answer": "A wall. It is blue."}],
        "questions": [one | {"question": "What color is the wall?", "answer": "blue", "task": "vqa"}],
        "vqa": [one | {"question": "What is it?", "answers": ["wall"] * 10, "task": "vqa"}],
        "daquar": [one | {"question": "what is on the wall?", "answer": "nothing", "task": "vqa"}],
        "vsr": [one | {"question": "[vqa] Based on the image, is this statement true or false? It is.", "answer": "true"}],
        "refer": [one | {"phrase": "a wall", "boxes": [[0.0, 0.0, 1.0, 1.0]]}],
        "several": [one | {"phrase": "two walls", "boxes": [[0.0, 0.0, 0.5, 1.0], [0.5, 0.0, 1.0, 1.0]]}],
        "objects": [one | {"phrase": "wall", "boxes": [[0.0, 0.0, 1.0, 1.0]], "task": "detection"}],
        "places": [one | {"phrase": "a wall", "boxes": [[0.0, 0.0, 1.0, 1.0]], "task": "refer"}],
        "grounding": [one | {"text": "A wall.", "phrases": [{"phrase": "A wall", "boxes": [[0.0, 0.0, 1.0, 1.0]]}]}],
        "conversations": [one | {"conversation": [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}]}],
    }
    rows["places_again"] = rows["places"]
    rows |= {"described": rows["captions"], "named": rows["captions"], "long": rows["describe"]}
    rows |= dict.fromkeys(("short", "naming", "foods"), rows["questions"])
    (data / "pocket").mkdir()
    request = {"question": "Write a poem about this picture.", "answer": "A wall so blue,\nit looks at you."}
    (data / "pocket/composed.jsonl").write_text(json.dumps(one | request) + "\n")
    (data / "pocket/talk.jsonl").write_text(json.dumps(one | request) + "\n" + json.dumps(request) + "\n")
    (data / "pocket/conversations.jsonl").write_text(json.dumps(rows["conversations"][0]) + "\n")
    for name, content in rows.items():
        for split in ("train", "dev"):
            (data / f"pocket/{name}.{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in content))
    mine = data.parent / "my_data"
    mine.mkdir()
    Image.new("RGB", (40, 30), "orange").save(mine / "cat.jpg")
    (mine / "captions.jsonl").write_text(json.dumps({"image": "cat.jpg", "answer": "My cat."}) + "\n")
