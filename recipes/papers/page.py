"""The papers' story at pocket size: small trainings and measurements, and the page that sets them beside the published numbers.

    python recipes/pocket/data.py FROM data/pocket                 the data, once
    python recipes/pocket/suite.py FROM data/pocket runs/suite
    python recipes/papers/page.py steps                            print the commands
    python recipes/papers/page.py run                              run those that have not been run; go on where it stopped
    python recipes/papers/page.py write docs/papers.md             the page and its plots, out of what has been run

Every table of the page names its commands. What has not been run says so, and so does what does not show the paper's effect.
"""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from minigpt4.errors import UserError
from minigpt4.evaluate.run import compare, score_answers
from minigpt4.evaluate.table import Line
from minigpt4.metrics.interval import Score
from minigpt4.train.report import chart

RUNS, ALL = Path("runs/papers"), Path("runs/all")
CAPTIONS = "data/pocket/captions.dev.jsonl --images data"
TRAININGS = ("linear", "no_joining", "three_layers", "encoder_trained", "images_8", "images_24", "alone", "after")
STYLE = "<style>.axis{stroke:#999;stroke-width:1} .tick{font:11px sans-serif;fill:#666} text{font-family:sans-serif}</style>"
CHAIR = (
    ("chair_short", "MiniGPT-4, short", "7.2 / - / 28.8"),
    ("chair_long", "MiniGPT-4, long", "9.6 / - / 175"),
    ("chair_v2_short", "MiniGPT-v2, short", "4.4 / 7.1 / 10.3"),
    ("chair_v2_grounded", "MiniGPT-v2, grounded", "7.6 / 12.5 / 18.9"),
    ("chair_v2_long", "MiniGPT-v2, long", "8.7 / 25.3 / 56.5"),
)
FAILED = (("description", ("35 %", "2 %")), ("poem", ("32 %", "1 %")))


@dataclass(frozen=True)
class Step:
    """A command, and the file that is there when it has been run."""

    name: str
    command: str
    done: Path


def training(name: str) -> Step:
    return Step(name, f"train recipes/papers/{name}.yaml", RUNS / name / "trained.safetensors")


def measured(name: str, benchmark: str, data: str, model: str, more: str = "") -> Step:
    command = f"evaluate run {benchmark} --data {data} --model {model} --output {RUNS / name} {more}".rstrip()
    return Step(name, command, RUNS / name / "report.json")


def steps() -> list[Step]:
    found = [
        measured(f"failures_{when}", "failures", "runs/suite/images/coco/captions.jsonl", f"pocket-{when}-stage2", "--limit 40")
        for when in ("before", "after")
    ]
    found += [training(name) for name in TRAININGS]
    for name in TRAININGS[:6]:
        model, greedy = str(RUNS / name), "--limit 48 --num-beams 1 --max-new-tokens 20"
        found.append(measured(f"captions_{name}", "captions", CAPTIONS, model, greedy))
    for name in ("linear", "alone", "after"):
        more = "--limit 24 --max-new-tokens 100"
        found.append(measured(f"descriptions_{name}", "failures", CAPTIONS, str(RUNS / name), more))
    for name, data in (
        ("vqa", "data/pocket/vqa.dev.jsonl --images data"),
        ("vsr", "runs/suite/vsr.jsonl --images runs/suite/images"),
    ):
        for tag in ("with", "without"):
            more = "--limit 60" + (" --no-identifier" if tag == "without" else "")
            found.append(measured(f"{name}_{tag}", name, data, "pocket", more))
    everything = f"evaluate all --data runs/suite/suite.yaml --output {ALL} --blank-image"
    return [*found, Step("all", everything, ALL / "report.md")]


def run() -> None:
    """Run what has not been run."""
    RUNS.mkdir(parents=True, exist_ok=True)
    captions = Path("data/pocket/captions.train.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    for count in (8, 24):
        (RUNS / f"captions.{count}.jsonl").write_text("".join(captions[:count]), encoding="utf-8")
    for step in steps():
        if not step.done.exists():
            print(f"minigpt4 {step.command}", flush=True)
            status = subprocess.run([sys.executable, "-m", "minigpt4", *step.command.split()], check=False).returncode
            if status not in (0, 1):  # 1: some of it could not be asked, which its report says
                sys.exit(status)


# the page ------------------------------------------------------------------------------------------------------------------


def command_of(name: str) -> str:
    return next(f"`minigpt4 {step.command}`" for step in steps() if step.name == name)


def line_of(folder: Path, name: str = "model") -> Line | None:
    """A line of the report of a run; None where it has not been run to its end."""
    if not (folder / "report.json").exists():
        return None
    try:
        report = score_answers(folder)
    except UserError:
        return None
    return next((line for line in report.lines if line.name == name), None)


def shown(score: Score | None, scale: float = 100, digits: int = 1) -> str:
    if score is None:
        return "not run"
    value = f"{scale * score.value:.{digits}f}"
    return value if score.low != score.low else f"{value} ({scale * score.low:.{digits}f} .. {scale * score.high:.{digits}f})"


def score_of(folder: Path, measure: str, name: str = "model") -> Score | None:
    line = line_of(folder, name)
    return None if line is None else line.scores.get(measure)


def verdict(a: Path, b: Path, measure: str, sign: int, line: str = "A - B") -> str:
    """Whether run `a` is ahead of run `b` by a measure (`sign` 1) or behind it (-1), as the paper has it; 0: about the same."""
    if not all((run / "report.json").exists() for run in (a, b)):
        return "not run"
    try:
        found = next((one.scores[measure] for one in compare(a, b).lines if one.name == line), None)
    except UserError:
        return "not run"
    if found is None:
        return "not run"
    apart = "above" if found.low > 0 else "below" if found.high < 0 else ""
    scale = 1 if measure == "CIDEr" else 100
    by = f"difference {shown(found, scale, 3 if scale == 1 else 1)}"
    if not apart:
        return f"about the same, as in the paper; {by}" if sign == 0 else f"**not shown**: {by} includes nought"
    if sign == 0:
        return f"**not as in the paper**: {by}"
    return f"as in the paper: {by}" if (apart == "above") == (sign > 0) else f"**the other way round**: {by}"


def loss_of(name: str) -> str:
    """The validation loss at a training's end."""
    try:
        rows = [json.loads(line) for line in (RUNS / name / "metrics.jsonl").read_text().splitlines()]
    except OSError:
        return "not run"
    losses = [(row["step"], value) for row in rows for key, value in row.items() if key.startswith("valid_loss/")]
    if not (RUNS / name / "trained.safetensors").exists():
        return f"not run to its end (step {rows[-1]['step'] if rows else 0})"
    return f"{losses[-1][1]:.3f}" if losses else "not measured"


def table(head: str, rows: list[tuple[str, ...]]) -> list[str]:
    columns = head.split("|")
    return [f"|{head}|", "|" + "---|" * len(columns), *(f"| {' | '.join(row)} |" for row in rows), ""]


def failures(drawn: set[str]) -> list[str]:
    before, after = RUNS / "failures_before", RUNS / "failures_after"
    lines = ["## Failures before and after the second stage (MiniGPT-4, table 3)", ""]
    rows = []
    for asked, published in FAILED:
        own = [shown(score_of(folder, "failed", f"model, {asked}")) for folder in (before, after)]
        rows.append((asked, *published, *own, verdict(before, after, "failed", 1, f"{asked} A - B")))
    lines += table(" | paper, before | after | pocket, before, % | after, % | does it show? ", rows)
    kinds = []
    for kind in ("repeats", "unfinished", "fragment", "off language", "off the subject"):
        both = [[shown(score_of(run, kind, f"model, {asked}")) for run in (before, after)] for asked, _ in FAILED]
        told = [verdict(before, after, kind, 1, f"{asked} A - B") for asked, _ in FAILED]
        kinds.append((kind, *both[0], told[0], *both[1], told[1]))
    lines += table(" of these, % | description, before | after | fewer? | poem, before | after | fewer? ", kinds)
    lines += [
        f"{command_of('failures_before')}, {command_of('failures_after')}.",
        "The rules, and how they agree with labels by hand, are in [evaluation](evaluation.md). Both systems are one",
        "projection each, and ship; the vision encoder and the language model (135 M) are as they came. The second stage",
        "teaches them to come to an end, not to say something new in each sentence.",
        "",
    ]
    return lines + picture("failures", "failures before and after", drawn)


def architecture() -> list[str]:
    lines = ["## The architecture (MiniGPT-4, table 4)", ""]
    rows = []
    for name, what, published, sign in (
        ("linear", "one linear layer", "58.2 / 32.2", None),
        ("no_joining", "without the Q-Former; here without joining cells", "56.9 / 33.4", 0),
        ("three_layers", "three linear layers", "49.7 / 31.0", 1),
        ("encoder_trained", "tuned Q-Former; here the vision encoder's last two blocks", "52.1 / 28.0", 1),
    ):
        own = RUNS / f"captions_{name}"
        told = "" if sign is None else verdict(RUNS / "captions_linear", own, "CIDEr", sign)
        rows.append((what, published, loss_of(name), shown(score_of(own, "CIDEr"), 1, 3), told))
    head = " | paper: A-OKVQA choices / GQA | pocket: loss of captions | CIDEr, 48 images | one linear layer ahead? "
    lines += table(head, rows)
    lines += [f"{command_of('three_layers')} and so on, then {command_of('captions_three_layers')}.", ""]
    return lines


def amount(drawn: set[str]) -> list[str]:
    lines = ["## How much first-stage data (MiniGPT-4, #GT covered)", ""]
    rows = []
    for name, count, published in (
        ("images_8", "8", "10 %: 1.62"),
        ("images_24", "24", "30 %: 2.15"),
        ("linear", "80", "100 %: 2.22"),
    ):
        own = RUNS / f"captions_{name}"
        told = "" if name == "linear" else verdict(RUNS / "captions_linear", own, "CIDEr", 1 if name == "images_8" else 0)
        rows.append((count, published, loss_of(name), shown(score_of(own, "CIDEr"), 1, 3), told))
    lines += table(" images | paper: captions covered, of 5 | pocket: loss of captions | CIDEr | more data ahead? ", rows)
    lines += [
        f"The same number of steps each: {command_of('images_8')}.",
        "",
    ]
    return lines + picture("losses", "training losses", drawn)


def hallucination(drawn: set[str]) -> list[str]:
    lines = ["## Invented things in short and long answers (MiniGPT-4, table 5; MiniGPT-v2)", ""]
    rows = []
    for name, what, published in CHAIR:
        own = [score_of(ALL / name, measure) for measure in ("CHAIR_i", "CHAIR_s", "recall", "words")]
        rows.append((what, published, *(shown(score) for score in own[:3]), shown(own[3], 1, 1)))
    lines += table(" prompt | paper: CHAIR_i / CHAIR_s / words | pocket: CHAIR_i, % | CHAIR_s, % | recall, % | words ", rows)
    short, long = (score_of(ALL / f"chair_{name}", "CHAIR_i") for name in ("short", "long"))
    if short is None or long is None:
        told = "Not run."
    elif short.value < long.value and short.high < long.low:
        told = "As in the paper, short answers invent less."
    else:
        told = "**Not shown**: the intervals of short and long answers overlap, or long ones invent less."
    lines += [f"{told} {command_of('all')}", ""]
    return lines + picture("invented", "things that are not there", drawn)


def alone() -> list[str]:
    lines = ["## The second stage alone (MiniGPT-4, section 4.4)", ""]
    rows = []
    for name, what in (("linear", "first stage alone"), ("alone", "second stage alone"), ("after", "second after first")):
        folder = RUNS / f"descriptions_{name}"
        own = [shown(score_of(folder, measure, "model, description")) for measure in ("failed", "off the subject")]
        rows.append((what, loss_of(name) if name != "linear" else "", *own))
    lines += table(" | pocket: loss of descriptions | descriptions that fail, % | off the subject, % ", rows)
    told = verdict(RUNS / "descriptions_alone", RUNS / "descriptions_after", "off the subject", 1, "description A - B")
    lines += [
        f"The second stage has few images; the paper needs the first one too. Off the subject more often without it? {told}.",
        "The language model here is the pocket's, which has learnt descriptions before: it writes a whole one whatever the",
        "projection in front of it has learnt.",
        f"{command_of('alone')}, {command_of('after')}.",
        "",
    ]
    return lines


def identifiers() -> list[str]:
    lines = ["## Task identifiers (MiniGPT-v2, table 5)", ""]
    rows = []
    for name, measure, published in (
        ("vqa", "accuracy", "OK-VQA 52.1 / 50.5, GQA 54.6 / 53.4"),
        ("vsr", "accuracy", "VSR 59.9 / 57.5"),
    ):
        a, b = RUNS / f"{name}_with", RUNS / f"{name}_without"
        rows.append((name, published, *(shown(score_of(run, measure)) for run in (a, b)), verdict(a, b, measure, 1)))
    lines += table(" | paper: trained with / without | pocket: asked with, % | without, % | does it show? ", rows)
    lines += [f"The paper trains without them; here the same weights are asked without. {command_of('vqa_without')}", ""]
    return lines


def blank() -> list[str]:
    lines = ["## Before a grey picture", ""]
    rows = []
    for name in ("captions", "vqav2", "gqa", "vsr", "pope", "choice"):
        line = line_of(ALL / name)
        if line is None:
            rows.append((name, "", "not run", "", ""))
            continue
        measure = next(iter(line.scores))
        scale, digits = (1, 3) if measure == "CIDEr" else (100, 1)
        usual = score_of(ALL / name, measure, "always yes" if name == "pope" else "always the same")
        blind = score_of(ALL / name, measure, "model, blank-image")
        told = "not run" if blind is None else shown(line.scores[measure] - blind, scale, digits)
        rows.append((name, measure, *(shown(score, scale, digits) for score in (line.scores[measure], blind, usual)), told))
    lines += table(" | measure | pocket | before a grey picture | always the same answer | what seeing adds ", rows)
    lines += [
        f"The papers print no such line; benchmarks that can be answered without looking measure less. {command_of('all')}",
        "",
    ]
    return lines


def bars(rows: list[tuple[str, float, Score | None]]) -> str:
    """Shares as SVG: for each line the paper's (grey, in percent) and ours with its interval."""
    left, right, height = 190, 620, 34 * len(rows) + 40

    def across(percent: float) -> float:
        return left + percent / 100 * (right - left)

    lines = [f'<text class="tick" x="{across(p):.0f}" y="{height - 6}" text-anchor="middle">{p} %</text>' for p in (0, 50, 100)]
    lines += [f'<path class="axis" d="M{across(p):.0f},16 V{height - 20}"/>' for p in (0, 50, 100)]
    lines += [f'<text x="{left}" y="11" font-size="12" fill="#888">paper</text>']
    lines += [f'<text x="{left + 60}" y="11" font-size="12" fill="#1f5c99">pocket</text>']
    for number, (name, published, own) in enumerate(rows):
        top = 20 + 34 * number
        lines.append(f'<text x="4" y="{top + 17}" font-size="12">{name}</text>')
        lines.append(f'<rect x="{left}" y="{top}" width="{across(published) - left:.1f}" height="11" fill="#bbb"/>')
        if own is not None:
            wide = across(100 * own.value) - left
            lines.append(f'<rect x="{left}" y="{top + 13}" width="{wide:.1f}" height="11" fill="#1f5c99"/>')
            ends = f"M{across(100 * own.low):.1f},{top + 18} H{across(100 * own.high):.1f}"
            lines.append(f'<path stroke="#e08a00" stroke-width="2" d="{ends}"/>')
    return f'<svg viewBox="0 0 640 {height}" role="img">{"".join(lines)}</svg>'


def plots(folder: Path) -> set[str]:
    """Draw what has been run; the names of the pictures that there are."""
    curves = {}
    for name in TRAININGS[:6]:
        if (RUNS / name / "trained.safetensors").exists():
            rows = [json.loads(line) for line in (RUNS / name / "metrics.jsonl").read_text().splitlines()]
            curves[name] = [(row["step"], row["loss"]) for row in rows if "loss" in row]
    failed = [
        (f"{asked}, {when}", float(share.split()[0]), score_of(RUNS / f"failures_{when}", "failed", f"model, {asked}"))
        for asked, published in FAILED
        for when, share in zip(("before", "after"), published, strict=True)
    ]
    invented = [(what, float(published.split()[0]), score_of(ALL / name, "CHAIR_i")) for name, what, published in CHAIR]
    drawn = {"losses": chart(curves)} if curves else {}
    drawn |= {
        name: bars(rows) for name, rows in (("failures", failed), ("invented", invented)) if any(own for _, _, own in rows)
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, svg in drawn.items():
        svg = svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ').replace('role="img">', f'role="img">{STYLE}', 1)
        (folder / f"papers-{name}.svg").write_text(svg, encoding="utf-8")
    return set(drawn)


def picture(name: str, what: str, drawn: set[str]) -> list[str]:
    return [f"![{what}](images/papers-{name}.svg)", ""] if name in drawn else []


def write(target: str) -> None:
    """The page, out of what has been run."""
    page = Path(target)
    drawn = plots(page.parent / "images")
    done = [step for step in steps() if step.done.exists()]
    lines = [
        "# The papers at pocket size",
        "",
        "The tables of the MiniGPT-4 and MiniGPT-v2 papers beside a system of 150 M parameters: trainings of a few minutes on",
        "one core, measured on few images. They show how each table is made, and which effects appear at this size; where one",
        "does not appear, it says so. In brackets are 95 % bootstrap intervals over images; one training each, so they say",
        "nothing of other seeds. Made by",
        "`python recipes/papers/page.py`;",
        f"{len(done)} of its {len(steps())} commands had been run.",
        "",
    ]
    lines += [*failures(drawn), *architecture(), *amount(drawn), *hallucination(drawn), *alone(), *identifiers(), *blank()]
    page.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")


def main(action: str = "", *arguments: str) -> None:
    if action == "steps":
        print("\n".join(f"minigpt4 {step.command}{'' if not step.done.exists() else '   # has been run'}" for step in steps()))
    elif action == "run" and not arguments:
        run()
    elif action == "write" and len(arguments) == 1:
        write(*arguments)
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main(*sys.argv[1:])
