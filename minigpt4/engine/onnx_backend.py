"""The language model in ONNX Runtime: on a CPU faster than torch, and faster again with weights of few bits.

The graph is `checkpoints.onnx_graph`'s; its attention writes keys and values where they lie, so that nothing is copied in a
step.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import torch

from .backend import Block
from .completion import EncodedImage
from .onnx_session import LanguageModelSession, session


class OnnxBackend:
    """A prepared graph, run on the CPU.

    Args:
        graph: ``model.onnx``, its weights beside it; they are mapped into memory.
        model: whose images and words are embedded.
        threads: of one step.
        fill: gives the model's language model its weights, where they were left out.
        vision: ``vision.onnx``, which encodes images in place of the model: in few bits an answer may hang on their last
            digits, and it shall be the one that is given without torch.

    Raises:
        UserError: ONNX Runtime is not installed.
    """

    name = "onnx"

    def __init__(
        self, graph: Path, model: Any, threads: int, fill: Callable[[], None] | None = None, vision: Path | None = None
    ):
        self.model, self._fill, self._filling = model, fill, Lock()
        self._graph = LanguageModelSession(graph, threads)
        self._vision = session(vision, threads) if vision is not None else None

    def complete(self) -> None:
        with self._filling:
            if self._fill is not None:
                self._fill()
                self._fill = None

    def image_features(self, pixels: torch.Tensor) -> torch.Tensor:
        if self._vision is None:
            return self.model.get_image_features(pixels)
        return torch.cat([torch.from_numpy(self._vision.run(None, {"pixels": one.numpy()})[0]) for one in pixels.split(1)])

    def new_block(self, rows: int, positions: int) -> Block:
        return [(torch.from_numpy(k), torch.from_numpy(v)) for k, v in self._graph.new_block(rows, positions)]

    def embed(self, ids: Sequence[int], images: Sequence[EncodedImage] = ()) -> torch.Tensor:
        known = torch.stack([image.embeds for image in images]) if images else None
        return self.model.embed(torch.tensor([list(ids)]), known)[0].float()

    def read(self, block: Block, embeds: torch.Tensor, past: int, lengths: Sequence[int]) -> torch.Tensor:
        ends = [row * embeds.shape[1] + length - 1 for row, length in enumerate(lengths)]
        # Where all begin, the attention takes each row's own length; further on it takes one row.
        totals = [past + length for length in lengths]
        return self._run(block, embeds.float(), totals, ends)

    def step(self, block: Block, tokens: Sequence[int], lengths: Sequence[int]) -> torch.Tensor:
        feed = self.model.get_input_embeddings()(torch.tensor(tokens)[:, None]).float()
        return self._run(block, feed, [length + 1 for length in lengths], list(range(len(tokens))))

    def read_each(self, block: Block, known: int, candidates: Sequence[Sequence[int]]) -> list[torch.Tensor]:
        return [self._run(block, self.embed(ids)[None], [known + len(ids)], list(range(len(ids)))) for ids in candidates]

    def _run(self, block: Block, embeds: torch.Tensor, totals: list[int], keep: list[int]) -> torch.Tensor:
        """The graph over new positions (R, Q, H) that fill each row to its total -> logits at some flat places, (kept, V)."""
        logits = torch.empty(len(keep), self._graph.vocabulary)
        arrays = [(keys.numpy(), values.numpy()) for keys, values in block]  # the same memory
        self._graph.run(arrays, embeds.detach().numpy(), totals, keep, logits.numpy())
        return logits
