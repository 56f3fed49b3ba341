"""Memory: importing needs about one shard of it, loading about the model in its own type; measured in processes of their own.

MINIGPT4_MEMORY_MB makes the measured system larger than a test wants it (1000 is a good measure).
"""

import json
import os
import subprocess
import sys

import pytest
import torch
from official_files import checkpoint_tensors, vision_tensors, write_llm

MEGABYTES = int(os.environ.get("MINIGPT4_MEMORY_MB", "60"))
WIDTH = 512
LAYER = 2 * (4 * WIDTH * WIDTH + 3 * WIDTH * 4 * WIDTH)  # bytes of a layer in 16 bits

# What each step needs beyond what the process had before it, in bytes: the peak of the process' own memory. Pages of files
# that it reads are not its own (the system takes them back when it needs them), and are not counted.
MEASURE = """
import gc, json, sys, threading
from pathlib import Path
import torch
torch.set_num_threads(1)
from minigpt4.checkpoints.loading import load_system
from minigpt4.checkpoints.official import importing, writing

def own():
    lines = Path("/proc/self/status").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) * 1024

def peak_of(step):
    gc.collect()
    before, peak, done = own(), [0], threading.Event()
    def watch():
        while not done.wait(0.002):
            peak.append(own())
    watcher = threading.Thread(target=watch)
    watcher.start()
    step()
    done.set(); watcher.join()
    return max(peak) - before

folder, writing.SHARD_BYTES = Path(sys.argv[1]), int(sys.argv[2])
parts = folder / "eva.pth", folder / "llm", folder / "checkpoint.pth", folder / "out"
steps = {
    "import": lambda: importing.import_official(*parts, vit_heads=4, dtype=torch.bfloat16),
    "load in bfloat16": lambda: load_system(folder / "out", dtype=torch.bfloat16),
    "load in float32": lambda: load_system(folder / "out", dtype=torch.float32),
}
print(json.dumps({name: peak_of(step) for name, step in steps.items()}))
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """Files of a Llama-2 kind of system whose language model has MEGABYTES in float16."""
    folder = tmp_path_factory.mktemp("large")
    torch.save(vision_tensors(), folder / "eva.pth")
    torch.save({"model": checkpoint_tensors(into=128, out=WIDTH)}, folder / "checkpoint.pth")
    write_llm(
        folder / "llm",
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=MEGABYTES * 1_000_000 // LAYER,
        num_attention_heads=8,
        num_key_value_heads=8,
    )
    return folder


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="measures through /proc")
def test_memory_of_importing_and_loading(large, capsys):
    shard = 16 << 20
    command = [sys.executable, "-c", MEASURE, str(large), str(shard)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    peaks = json.loads(result.stdout.splitlines()[-1])
    shards = [f.stat().st_size for f in (large / "out").glob("*.safetensors")]
    size = sum(shards)
    assert size > 0.9e6 * MEGABYTES
    assert len(shards) > 2
    if "MINIGPT4_MEMORY_MB" in os.environ:
        with capsys.disabled():
            print(f"\nmodel: {size / 1e6:.0f} MB in bfloat16, shards of {shard / 1e6:.0f} MB")
            for name, peak in peaks.items():
                print(f"{name}: peak {peak / 1e6:.0f} MB")
    room = 40_000_000  # tables and buffers that do not grow with the model
    assert peaks["import"] < 3 * shard + room
    assert peaks["load in bfloat16"] < 1.1 * size + room
    assert peaks["load in float32"] < 1.1 * 2 * size + room
