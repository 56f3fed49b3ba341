"""Systems recorded from the published implementation, imported once and shared by the tests.

A full set of recordings can be named by MINIGPT4_FIXTURES; without it, the part of one in tests/data is used.
"""

import json
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch
from recorded import ROOT
from safetensors.torch import load_file

from minigpt4.checkpoints.loading import load_system
from minigpt4.checkpoints.official.account import Account
from minigpt4.checkpoints.official.importing import import_official
from minigpt4.model.legacy_llama_tokenizer import legacy_llama_tokenizer, use_official_pad

EXACT = {"atol": 1e-4, "rtol": 0}
SYSTEMS = [folder.name for folder in sorted(ROOT.glob("[a-z]")) if (folder / "eva_vit_g.pth").exists()]
TOKENIZERS = [folder.name for folder in sorted(ROOT.glob("[a-z]")) if (folder / "tokenizer.json").exists()]
_work = tempfile.TemporaryDirectory(prefix="minigpt4-tests-")


class System:
    """A recorded system: its files, what they were imported to, and what was recorded of it."""

    def __init__(self, name: str):
        self.name, self.files, self.folder = name, ROOT / name, Path(_work.name) / name
        self.facts = self.json("system.json")
        self.account: Account = import_official(**self.parts(), output=self.folder)

    def parts(self, **changes: Any) -> dict[str, Any]:
        """What `import_official` is given."""
        qformer = self.files / "blip2_pretrained_flant5xxl.pth"
        return {
            "vit": self.files / "eva_vit_g.pth",
            "llm": self.files / "llm",
            "checkpoint": self.files / "checkpoint_0.pth",
            "qformer": qformer if qformer.exists() else None,
            "vit_heads": self.facts["vit"]["heads"],
        } | changes

    def load(self, merge: bool = True) -> tuple[Any, Any]:
        """A fresh model in float32, with its processor set to the published pad string."""
        model, processor = load_system(self.folder, dtype=torch.float32, merge=merge)
        use_official_pad(processor.tokenizer)
        return model, processor

    @cache  # noqa: B019  (systems live as long as the process)
    def loaded(self) -> tuple[Any, Any]:
        """The same one for all who do not change it."""
        return self.load()

    @cache  # noqa: B019
    def image_embeds(self) -> torch.Tensor:
        """What the language model receives for each picture."""
        model, processor = self.loaded()
        with torch.no_grad():
            return model.get_image_features(pixels(processor))

    def json(self, file: str) -> Any:
        return json.loads((self.files / file).read_text(encoding="utf-8"))

    def tensors(self, file: str) -> dict[str, torch.Tensor]:
        return load_file(self.files / file)


@cache
def system(name: str) -> System:
    return System(name)


def tokenizer_of(name: str) -> Any:
    """A recorded system's tokenizer alone."""
    return legacy_llama_tokenizer(ROOT / name / "llm")


def pixels(processor: Any) -> torch.Tensor:
    """The recorded pictures, in order."""
    return processor.image_processor(images())["pixel_values"]


def images() -> list[Path]:
    """The pictures that systems were shown, in order."""
    return [ROOT / "common" / "images" / f"raw_{k}.png" for k in range(3)]


def shown(case: dict[str, Any], embeds: torch.Tensor) -> torch.Tensor:
    """The pictures of a recorded case: (P, K, H)."""
    return embeds[[k for row in case["images"] for k in row]]
