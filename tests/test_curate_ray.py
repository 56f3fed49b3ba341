"""A curation on a Ray cluster: what comes out is what one process makes, whoever dies on the way. Needs Ray.

Without pytest it runs as a script that says what it saw, of as many images as it is told: python tests/test_curate_ray.py 60
"""

import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest
import torch
from conftest import tiny_folder
from PIL import Image

from minigpt4.curate.pipeline import FILES, Pipeline
from minigpt4.curate.recipe import Recipe
from minigpt4.errors import UserError
from minigpt4.jobs.spread import Cluster, Deaths, Worker

IMAGES, BROKEN = 14, 5


# without Ray --------------------------------------------------------------------------------------------------------------


def worker(make):
    deaths = Deaths()
    return Worker(make, deaths.begin, deaths.end), deaths


def batch(*ids):
    return {"row": [json.dumps({"id": id}) for id in ids]}


def test_a_row_that_cannot_be_worked_on_takes_no_other_with_it():
    def work(rows):
        if any(row["id"] == "b" for row in rows):
            raise ZeroDivisionError("by\nzero")
        return [{"text": row["id"] * 2} for row in rows]

    done = worker(lambda: work)[0](batch("a", "b", "c"))
    assert done["id"] == ["a", "b", "c"]
    assert list(map(json.loads, done["added"])) == [{"text": "aa"}, {"error": "ZeroDivisionError: by zero"}, {"text": "cc"}]


def test_a_batch_that_workers_die_of_is_taken_apart():
    class Died(BaseException):
        pass

    def work(rows):
        if any(row["id"] == "b" for row in rows):
            raise Died
        return [{} for _ in rows]

    ours, deaths = worker(lambda: work)
    died = 0
    while True:
        try:
            done = ours(batch("a", "b", "c"))
            break
        except Died:
            died += 1
    assert died == 3
    assert [json.loads(one).get("error", "")[:20] for one in done["added"]] == ["", "a worker died of it,", ""]
    assert not ours(batch("a", "c"))["added"][0].startswith('{"error')
    assert deaths.begin("row of its own") == 0


def test_what_no_row_is_to_blame_for_ends_the_run():
    def make():
        raise UserError("no such model")

    assert json.loads(worker(make)[0](batch("a"))["added"][0]) == {"failure": "no such model"}


def test_a_ceiling_is_not_promised_to_a_cluster(tmp_path):
    agent = {"endpoint": "http://x/v1", "name": "m", "prices": [1, 1], "max_cost": 1}
    data = {"output": str(tmp_path / "o"), "draw": {"folder": str(tmp_path)}, "repair": {"how": "agent", "agent": agent}}
    with pytest.raises(UserError, match=r"repair\.agent\.max_cost"):
        Pipeline(Recipe.model_validate(data), cluster=Cluster())


# with Ray -----------------------------------------------------------------------------------------------------------------


def make_world(folder, images):
    torch.manual_seed(0)
    tiny_folder(folder / "base")
    (folder / "images").mkdir()
    for i in range(images):
        Image.new("RGB", (24, 18), (15 * i % 256, 99, i)).save(folder / "images" / f"{i:03d}.png")
    (folder / "images" / f"{BROKEN:03d}.png").write_bytes(b"no picture")


def curate(folder, output, cluster=None):
    recipe = {
        "output": str(folder / output),
        "draw": {"folder": str(folder / "images")},
        "describe": {"agent": {"model": str(folder / "base")}, "max_new_tokens": 8, "batch": 2},
        "repair": {"how": "none"},
        "rules": {"min_words": 1},
    }
    Pipeline(Recipe.model_validate(recipe), cluster=cluster).run()
    return {name: (folder / output / name).read_bytes() for step, name in FILES.items() if step != "check"}


def kill_a_worker(file, killed):
    """Kill one worker as soon as the first rows are there."""
    import psutil

    while not killed:
        time.sleep(0.005)
        if not file.is_file() or file.read_bytes().count(b"\n") < 2:
            continue
        for process in psutil.Process().children(recursive=True):
            if process.is_running() and "MapWorker" in " ".join(process.cmdline()):
                os.kill(process.pid, signal.SIGKILL)
                killed.append(process.pid)
                return


def test_one_worker_two_workers_and_one_that_is_killed_make_what_one_process_makes(tmp_path):
    pytest.importorskip("ray.data", reason="Ray is not installed: pip install 'minigpt4[ray]'")
    told = compare(tmp_path)
    assert (told["one worker"], told["two workers"], told["one of two killed"]) == (True, True, True)
    assert told["killed"]
    assert told["errors"] == [f"{BROKEN:06d}"]
    assert told["ids"] == [f"{i:06d}" for i in range(IMAGES)]


def compare(folder, images=IMAGES):
    """Whether the files of each run are those of one process."""
    make_world(folder, images)
    alone = curate(folder, "alone")
    described = [json.loads(line) for line in alone[FILES["describe"]].splitlines()]
    told = {"ids": [row["id"] for row in described], "errors": [row["id"] for row in described if "error" in row]}
    one, two = Cluster(workers=1), Cluster(workers=2)
    try:
        told["one worker"] = curate(folder, "one", one) == alone
        told["two workers"] = curate(folder, "two", two) == alone
        killed: list[int] = []
        thread = threading.Thread(target=kill_a_worker, args=(folder / "killed" / FILES["describe"], killed))
        thread.start()
        told["one of two killed"] = curate(folder, "killed", two) == alone
        told["killed"] = len(killed)
        killed.append(0)
        thread.join()
    finally:
        one.close()
        two.close()
    return told


if __name__ == "__main__":
    import sys
    import tempfile

    with tempfile.TemporaryDirectory() as place:
        begun = time.monotonic()
        print(compare(Path(place), *map(int, sys.argv[1:])), f"{time.monotonic() - begun:.0f} s")
