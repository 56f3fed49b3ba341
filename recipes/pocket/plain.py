"""Has plain language survived? Thirty-six questions without an image, asked of a system and of its language model as it came.

    python recipes/pocket/plain.py MODEL answers.jsonl

An answer is right when one of the words that are known to be right stands in it, and it does not repeat itself. The language
model as it came is asked with the same template and the same settings. None of the questions is learnt (`text_questions.txt`).
"""

import json
import re
import sys
from pathlib import Path

import torch

from minigpt4 import load
from minigpt4.checkpoints.pocket import prepared

QUESTIONS = {
    # question: words of which one has to be in the answer
    "What is the capital of Spain?": "madrid",
    "What is the capital of Japan?": "tokyo",
    "Which planet is closest to the sun?": "mercury",
    "What is the chemical symbol for water?": "h2o",
    "How many legs does a spider have?": "eight 8",
    "What do bees make?": "honey",
    "Name the season that comes after winter.": "spring",
    "What is the opposite of cold?": "hot warm",
    "How many months are there in a year?": "twelve 12",
    "What is the largest animal on earth?": "whale",
    "In which country is the Eiffel Tower?": "france",
    "What do you call a baby dog?": "puppy",
    "What is two plus three?": "five 5",
    "Who painted the Mona Lisa?": "vinci leonardo",
    "What is frozen water called?": "ice",
    "Which animal says meow?": "cat",
    "What language do people speak in Brazil?": "portuguese",
    "What colour do you get from blue and yellow?": "green",
    "How do I boil an egg?": "water boil boiling",
    "How do I make lemonade?": "lemon lemons sugar",
    "Give me three tips for learning to draw.": "practice draw drawing sketch",
    "Explain what a thermometer is for.": "temperature",
    "Explain what a bank does.": "money loans financial deposits",
    "Why do people wear coats in winter?": "warm cold",
    "Why do we brush our teeth?": "teeth plaque bacteria cavities",
    "What should I take to the beach?": "sunscreen towel water hat",
    "Write a short poem about a cat.": "cat paws whiskers feline purr",
    "Write a short poem about rain.": "rain drops sky",
    "Tell me a short story about a fox.": "fox",
    "Tell me a short story about a lighthouse.": "lighthouse light sea",
    "Write an advertisement for a pizza restaurant.": "pizza",
    "Write a slogan for a bookshop.": "book books read reading story stories",
    "Write a short letter to my grandmother.": "grandmother grandma dear",
    "Describe a garden in summer.": "flowers garden plants sun",
    "Describe a busy train station.": "train trains station passengers people",
    "What is a good way to say thank you?": "thank thanks gratitude grateful appreciate",
}


def loops(answer: str) -> bool:
    words = re.findall(r"[a-z']+", answer.lower())
    grams = [tuple(words[i : i + 4]) for i in range(len(words) - 3)]
    return len(grams) > 8 and len(set(grams)) < 0.7 * len(grams)


def right(answer: str, wanted: str) -> bool:
    return bool(set(re.findall(r"[a-z0-9]+", answer.lower())) & set(wanted.split())) and not loops(answer)


def of_language_model(questions: list[str], settings: dict) -> list[str]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(prepared() / "llm")
    model = AutoModelForCausalLM.from_pretrained(prepared() / "llm", dtype=torch.float32).eval()
    answers = []
    for question in questions:
        prompt = f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
        ids = tokenizer(prompt, return_tensors="pt", add_special_tokens=False)
        with torch.inference_mode():
            out = model.generate(**ids, do_sample=False, pad_token_id=2, **settings)
        answers.append(tokenizer.decode(out[0, ids["input_ids"].shape[1] :], skip_special_tokens=True).strip())
    return answers


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    name, target = sys.argv[1], Path(sys.argv[2])
    settings = {"max_new_tokens": 90, "no_repeat_ngram_size": 3, "repetition_penalty": 1.15}
    questions = list(QUESTIONS)
    asked = load(name, dtype=torch.float32).ask_many([((), question) for question in questions], **settings)
    both = {name: [str(answer) for answer in asked], "language model": of_language_model(questions, settings)}
    rows, scores = [], {}
    for said, answers in both.items():
        marks = [right(answer, QUESTIONS[question]) for question, answer in zip(questions, answers, strict=True)]
        scores[said] = marks
        rows += [
            {"model": said, "question": question, "answer": answer, "right": mark}
            for question, answer, mark in zip(questions, answers, marks, strict=True)
        ]
    target.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    for said, marks in scores.items():
        print(f"{said}: {sum(marks)} of {len(marks)} right, {sum(map(loops, both[said]))} repeat themselves")
    one, other = scores.values()
    better, worse = sum(a > b for a, b in zip(one, other, strict=True)), sum(a < b for a, b in zip(one, other, strict=True))
    print(f"in pairs: {better} better, {worse} worse than the language model as it came")


if __name__ == "__main__":
    main()
