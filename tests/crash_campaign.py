"""Crashes on purpose: kills at random moments, full and read-only disks, damaged files; counts what came of each.

    python tests/crash_campaign.py [--trials 20] [--seed 0] [--only KIND ...]

Everything runs on a tiny random system. A trial is good if what is there in the end is, bit for bit, what an undisturbed run
leaves, with at most one line said on the way: started again, a training, a feature cache, a file of captions, an evaluation, a
curation, a file of dialogues or the preparation of the pocket model goes on from what it had. The exit status says whether all
trials were good. Full disks need the right to mount a tmpfs, and are left out without it.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import fake_pocket
import shapes
import torch
from conftest import tiny_folder

from minigpt4 import cli
from minigpt4.checkpoints.loading import load_system
from minigpt4.checkpoints.trained import read_trained
from minigpt4.curate.rules import SAYS
from minigpt4.errors import UserError
from minigpt4.model.feature_cache import FeatureCache, pixels_of
from minigpt4.serve.keys import Keys, add_key
from minigpt4.train.loop import Interrupted, train
from minigpt4.train.recipe import parse_recipe

DONE, SAID, STOPPED, BROKEN = 0, 3, 4, 5
IMAGES = 24
KINDS = ["kills", "cache", "captions", "evaluation", "curation", "dialogues", "pocket", "disks", "damage"]


class Campaign:
    """A place with a tiny system and a few images, and what an undisturbed run makes of them."""

    def __init__(self, place: Path, rng: random.Random):
        self.place, self.rng, self.counts, self.bad = place, rng, Counter[str](), list[str]()
        torch.set_num_threads(1)
        torch.manual_seed(0)
        tiny_folder(place / "base")
        shapes.write(place / "data", IMAGES)
        shapes.write(place / "data", 4, seed=1, name="valid")
        self.images = sorted((place / "data").glob("shapes-*.png"))
        asked = [{"image": f"data/{image.name}", "question": "colour?", "answer": "red"} for image in self.images[:12]]
        (place / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))
        os.environ["MINIGPT4_CACHE"] = str(place / "minigpt4-cache")
        begun = time.monotonic()
        self.check("reference", self.run(self.training, place / "reference", 1) == DONE, self.said())
        self.seconds = time.monotonic() - begun
        self.truth = self.result(place / "reference")
        self.jobs = {"captions": self.captions, "evaluation": self.evaluation, "curation": self.curation}
        self.jobs |= {"dialogues": self.dialogues}
        for kind, job in self.jobs.items():
            output = place / f"reference-{kind}"
            self.check("reference", self.run(job, output) == DONE, f"{kind}: {self.said()}")
        self.kept = {kind: _contents(place / f"reference-{kind}") for kind in self.jobs}

    # what is disturbed ---------------------------------------------------------------------------------------------

    def training(self, output: Path, every: int, cache: Path | None = None) -> None:
        """Ten steps, with validation and a checkpoint every so many."""
        lora = {"r": 4, "alpha": 8, "dropout": 0.1, "target_modules": ["q_proj", "v_proj"]}
        rows = {"format": "jsonl", "annotations": str(self.place / "data/shapes.jsonl"), "captions": "all"}
        valid = {"format": "jsonl", "annotations": str(self.place / "data/valid.jsonl")}
        data = {"datasets": [rows], "batch": 4, "row_tokens": 96, "cache_folder": str(cache or output.with_suffix(".cache"))}
        recipe = {
            "model": {"base": str(self.place / "base"), "fresh": ["projection"]},
            "trained": {"projection": True, "lora": lora},
            "data": data | {"cache_features": True},
            "validation": {"every": 2, "datasets": [valid], "images": [str(self.images[0])]},
            "steps": 10,
            "precision": "fp32",
            "checkpoint_every": every,
            "output": str(output),
        }
        train(parse_recipe(recipe, "campaign"))

    def command(self, *given: object) -> None:
        sys.argv = ["minigpt4", *map(str, given)]
        cli.main()

    def captions(self, output: Path) -> None:
        given = ["--model", self.place / "base", "--dtype", "float32", "--batch-size", 2, "--max-new-tokens", 4]
        self.command("caption", *self.images, "--output", output, *given)

    def evaluation(self, output: Path) -> None:
        given = ["--model", self.place / "base", "--dtype", "float32", "--batch-size", 2, "--max-new-tokens", 4]
        self.command(
            "evaluate", "run", "vqa", "--data", self.place / "questions.jsonl", "--output", output, "--blank-image", *given
        )

    def curation(self, output: Path) -> None:
        rules = {"min_words": 1, "without": list(SAYS)}
        agent = {"model": str(self.place / "base"), "settings": {"max_new_tokens": 4}}
        recipe = {"output": str(output), "draw": {"folder": str(self.place / "data"), "count": 8}, "rules": rules}
        recipe |= {"describe": {"agent": agent, "batch": 2, "max_new_tokens": 4}}
        recipe |= {"check": {"scorer": agent["model"], "detector": agent["model"]}}
        file = output.with_suffix(".yaml")
        file.write_text(json.dumps(recipe))
        self.command("curate", "run", file)

    def dialogues(self, output: Path) -> None:
        given = ["--model", self.place / "base", "--dtype", "float32", "--rounds", 2, "--workers", 2]
        self.command("converse", *self.images[:4], "--output", output, *given)

    def cache(self, folder: Path) -> FeatureCache:
        model, processor = load_system(self.place / "base", dtype=torch.float32)
        return FeatureCache(model.requires_grad_(False), processor.image_processor, folder)

    def filling(self, folder: Path, seed: int) -> None:
        cache, images = self.cache(folder), [(image, False) for image in self.images]
        random.Random(seed).shuffle(images)
        for start in range(0, IMAGES, 3):
            if todo := cache.missing(images[start : start + 3]):
                cache.add(todo)

    # how -----------------------------------------------------------------------------------------------------------

    def start(self, what: Callable[..., None], *given: object) -> int:
        """Begin it in a process of its own; returns that process' number."""
        (self.place / "said").write_text("")
        if child := os.fork():
            return child
        status = BROKEN
        try:
            os.setsid()
            log = os.open(self.place / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(log, 1)
            os.dup2(log, 2)
            what(*given)
            status = DONE
        except UserError as error:
            (self.place / "said").write_text(str(error))
            status = SAID if "\n" not in str(error) else BROKEN
        except (Interrupted, KeyboardInterrupt):
            status = STOPPED
        except SystemExit as left:  # a command's way
            status = SAID if left.code else DONE
            (self.place / "said").write_text((self.place / "log").read_text().rstrip("\n").split("\n")[-1])
        except BaseException as error:
            (self.place / "said").write_text(f"{type(error).__name__}: {error}")
        finally:
            os._exit(status)

    def run(self, what: Callable[..., None], *given: object, kill: float = 0.0, by: int = signal.SIGKILL) -> int:
        """Run it, killed after so many seconds if it takes longer; its status (negative if it was killed)."""
        child = self.start(what, *given)
        end = time.monotonic() + kill
        while kill and time.monotonic() < end and not (ended := os.waitpid(child, os.WNOHANG))[0]:
            time.sleep(0.005)
        if kill and not ended[0]:
            os.killpg(child, by) if os.getpgid(child) == child else os.kill(child, by)
        if not (kill and ended[0]):
            ended = os.waitpid(child, 0)
        return os.waitstatus_to_exitcode(ended[1])

    def said(self) -> str:
        return (self.place / "said").read_text()

    def result(self, output: Path) -> tuple[object, ...]:
        """What a training has left: weights, and what was measured at each step, which no record repeats."""
        rows = [json.loads(line) for line in (output / "metrics.jsonl").read_text().split("\n") if line]
        kept = [{k: v for k, v in row.items() if k not in ("tokens_per_s", "samples_per_s", "mfu", "waited_s")} for row in rows]
        weights = {name: tensor.numpy().tobytes() for name, tensor in read_trained(output).items()}
        return weights, kept, (output / "report.html").exists()

    def check(self, kind: str, good: bool, why: str = "") -> None:
        self.counts[f"{kind}: {'good' if good else 'BAD'}"] += 1
        if not good:
            self.bad.append(f"{kind}: {why}")
            print(f"BAD {kind}: {why}", flush=True)

    def finish(self, kind: str, output: Path, every: int, cache: Path | None = None, about: str = "") -> None:
        """Run a training undisturbed from where it stands; it must come to the reference's bits."""
        status = self.run(self.training, output, every, cache)
        if status != DONE:
            self.check(kind, False, f"{about}: status {status}: {self.said()}")
            return
        weights, rows, report = self.result(output)
        same = [weights == self.truth[0], rows == self.truth[1], report]
        left = [p.name for p in output.rglob(".*") if p.name != ".lock"]
        self.check(kind, all(same) and not left, f"{about}: same weights, records, report: {same}; left over: {left}")

    # the kinds -----------------------------------------------------------------------------------------------------

    def kills(self, trials: int) -> None:
        """A training killed again and again, by several signals, until it ends."""
        for trial in range(trials):
            output, every = self.place / f"killed-{trial}", self.rng.choice([1, 2, 3, 100])
            for _ in range(self.rng.randint(1, 5)):
                by = self.rng.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
                status = self.run(self.training, output, every, kill=self.rng.uniform(0.05, 1.1) * self.seconds, by=by)
                self.counts[f"kills by {signal.Signals(by).name}"] += status not in (DONE, SAID, BROKEN)
                if status in (SAID, BROKEN):
                    self.check("kills", False, f"status {status}: {self.said()}")
            self.finish("kills", output, every, about=f"trial {trial}, a checkpoint every {every}")

    def caches(self, trials: int) -> None:
        """Three processes that fill one feature cache, some of them killed; every row must be that of its image."""
        for trial in range(trials):
            folder = self.place / f"cache-{trial}"
            children = [self.start(self.filling, folder, self.rng.randrange(1000)) for _ in range(3)]
            for child in children[: self.rng.randint(0, 3)]:
                time.sleep(self.rng.uniform(0, 0.3))
                os.kill(child, signal.SIGKILL)
                self.counts["cache: kills"] += 1
            ends = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
            status = self.run(self.filling, folder, 0)
            cache = self.cache(folder)
            todo = cache.missing([(image, False) for image in self.images])
            wrong = [i.name for i in self.images if not todo and not torch.equal(cache.get(i), self.seen(cache, i))]
            good = status == DONE and not todo and not wrong and {SAID, BROKEN}.isdisjoint(ends)
            self.check("cache", good, f"trial {trial}: ends {ends}, {len(todo)} missing, wrong {wrong}: {self.said()}")

    def seen(self, cache: FeatureCache, image: Path) -> torch.Tensor:
        """What is computed: alone, and in groups as the cache was made, it is the same but for rounding."""
        computed, kept = cache.look(pixels_of(cache.image_processor, image, False)[None])[0], cache.get(image)
        return kept if torch.allclose(kept, computed, atol=1e-5, rtol=1e-5) else computed

    def continuing(self, kind: str, trials: int) -> None:
        """A job to a file or a folder, killed and continued."""
        begun = time.monotonic()
        self.run(self.jobs[kind], self.place / f"timed-{kind}")
        seconds = time.monotonic() - begun
        for trial in range(trials):
            output = self.place / f"{kind}-{trial}"
            for _ in range(3):
                status = self.run(self.jobs[kind], output, kill=self.rng.uniform(0.02, 1.1) * seconds)
                self.counts[f"{kind}: kills"] += status == -signal.SIGKILL
                if kind == "curation" and status == -signal.SIGKILL:
                    steps = sorted(path.stem for path in output.glob("[0-9]_*.jsonl"))
                    self.counts[f"{kind}: kills in {steps[-1] if steps else 'no step yet'}"] += 1
            status = self.run(self.jobs[kind], output)
            same = output.exists() and _contents(output) == self.kept[kind]
            self.check(kind, status == DONE and same, f"trial {trial}: status {status}, same {same}: {self.said()}")

    def preparing(self, trials: int) -> None:
        """The pocket model's preparation by two processes, killed, and done again."""
        wheels = fake_pocket.write_wheels(self.place / "wheels")
        for trial in range(trials):
            folder = self.place / f"pocket-{trial}"
            own = {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels), "OMP_NUM_THREADS": "1"}
            own |= {"MINIGPT4_CACHE": str(folder), "FAKE_POCKET_LOG": str(self.place / "fetched")}
            command = [sys.executable, fake_pocket.__file__, str(wheels), "0.5"]
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            children = [subprocess.Popen(command, env=os.environ | own, **quiet) for _ in range(2)]  # type: ignore[call-overload]
            for child in children:
                try:
                    child.wait(self.rng.uniform(0.5, 12))
                except subprocess.TimeoutExpired:
                    child.kill()
                    child.wait()
                    self.counts["pocket: kills"] += 1
            done = subprocess.run(command, env=os.environ | own, capture_output=True, text=True, check=False)
            left = [file.name for file in folder.iterdir() if file.name.startswith(".pocket-")]
            good = done.returncode == 0 and not left
            self.check("pocket", good, f"trial {trial}: status {done.returncode}, left over {left}: {done.stderr[-200:]}")

    def disks(self, trials: int) -> None:
        """A disk that is full, or read-only, at a random place in a training; then there is room."""
        disk = self.place / "disk"
        disk.mkdir(exist_ok=True)
        for trial in range(trials):
            size = self.rng.randint(4, 100) * 4096
            mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", disk]
            if subprocess.run(mount, capture_output=True, check=False).returncode:
                print("full disks: left out, nothing can be mounted here")
                return
            try:
                status = self.run(self.training, disk / "out", 2)
                one_line = status in (DONE, SAID) and (status == DONE or "left" in self.said() or "cannot" in self.said())
                self.counts[f"disks: {'room enough' if status == DONE else 'full, said in one line'}"] += one_line
                if not one_line:
                    self.check("disks", False, f"{size} bytes, status {status}: {self.said()}")
                subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
                status = self.run(self.training, disk / "out", 2)
                if status not in (DONE, SAID):
                    self.check("disks", False, f"read-only, status {status}: {self.said()}")
                subprocess.run(["mount", "-o", f"remount,rw,size={64 << 20}", disk], check=True)
                self.finish("disks", disk / "out", 2, about=f"trial {trial}, {size} bytes")
                for kind, job in self.jobs.items():
                    output = disk / kind
                    (disk / "filler").write_bytes(bytes(max(0, shutil.disk_usage(disk).free - self.rng.randint(0, 6) * 4096)))
                    status, said = self.run(job, output), self.said()
                    (disk / "filler").unlink()
                    again = self.run(job, output)
                    same = output.exists() and _contents(output) == self.kept[kind]
                    good = status in (DONE, SAID) and again == DONE and same
                    self.check("disks", good, f"{kind}: {status} ({said}), then {again}, same {same}: {self.said()}")
                    self.counts[f"disks: {kind}, {'room enough' if status == DONE else 'full, said in one line'}"] += 1
                self.keys(disk)
            finally:
                subprocess.run(["umount", "-l", disk], check=False)

    def keys(self, disk: Path) -> None:
        """Keys of a server, until there is no room; those that were told are there, and another one is when there is room."""
        file, told = disk / "keys", self.place / "told"
        add_key(file, "first")
        told.write_text("")
        (disk / "filler").write_bytes(bytes(shutil.disk_usage(disk).free))
        status, said = self.run(self.new_keys, file, told), self.said()
        (disk / "filler").unlink()
        add_key(file, "last")
        there = [line.split()[0] for line in file.read_text().split("\n") if line]
        whole = there == ["first", *told.read_text().split(), "last"] and len(there) > 2
        Keys.read(file)  # or the server would not start
        self.check("disks", status == SAID and whole, f"keys: {status} ({said}), there are {there}")

    def new_keys(self, file: Path, told: Path) -> None:
        for number in range(200):
            add_key(file, f"key-{number}")
            with told.open("a") as names:
                names.write(f"key-{number}\n")

    def damage(self, trials: int) -> None:
        """A file of a training that stands half-way, or of its feature cache, cut short, changed, emptied or taken away."""
        output, cache = self.place / "damaged", self.place / "damaged.cache"
        child = self.start(self.training, output, 2)
        while not (output / "checkpoints/step-00000006").exists():
            time.sleep(0.002)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        for folder in (output, cache):
            folder.rename(folder.with_name(f"half-{folder.name}"))
        for trial in range(trials):
            for folder in (output, cache):
                shutil.rmtree(folder, ignore_errors=True)
                shutil.copytree(folder.with_name(f"half-{folder.name}"), folder)
            files = [p for p in [*output.rglob("*"), *cache.rglob("*")] if p.is_file() and p.suffix != ".lock"]
            file = self.rng.choice(sorted(files))
            how = self.harm(file)
            about = f"trial {trial}, {file.relative_to(self.place)} {how}"
            status = self.run(self.training, output, 2, cache)
            if status == SAID:  # a row of the cache: said once, and made anew by the same command
                self.counts["damage: said in one line first"] += 1
            elif status != DONE:
                self.check("damage", False, f"{about}: status {status}: {self.said()}")
                continue
            self.finish("damage", output, 2, cache, about)

    def harm(self, file: Path) -> str:
        """Damage a file; how."""
        data = bytearray(file.read_bytes())
        how = self.rng.choice(["cut short", "one bit flipped", "zeros in it", "emptied", "garbage", "gone"])
        place = self.rng.randrange(len(data) or 1)
        if how == "cut short":
            del data[place:]
        elif how == "one bit flipped" and data:
            data[place] ^= 1 << self.rng.randrange(8)
        elif how == "zeros in it":
            data[place : place + 200] = bytes(len(data[place : place + 200]))
        elif how == "emptied":
            data.clear()
        elif how == "garbage":
            data[:] = self.rng.randbytes(len(data))
        if how == "gone":
            file.unlink()
        else:
            file.write_bytes(data)
        return how


def _contents(place: Path) -> dict[str, bytes]:
    """What a job has left: its file, or the files of its folder but for the pages, which name the folder."""
    files = [place] if place.is_file() else [file for file in place.rglob("*") if file.is_file() and file.suffix != ".html"]
    return {str(file.relative_to(place)): file.read_bytes() for file in files}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--trials", type=int, default=20, help="of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=KINDS)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        campaign = Campaign(Path(place), random.Random(given.seed))
        kinds = {
            "kills": campaign.kills,
            "cache": campaign.caches,
            **{kind: partial(campaign.continuing, kind) for kind in campaign.jobs},
            "pocket": campaign.preparing,
            "disks": campaign.disks,
            "damage": campaign.damage,
        }
        for kind, run in kinds.items():
            if not given.only or kind in given.only:
                run(given.trials)
    print("\n".join(f"{number:6}  {what}" for what, number in sorted(campaign.counts.items())))
    sys.exit(bool(campaign.bad))


if __name__ == "__main__":
    main()
