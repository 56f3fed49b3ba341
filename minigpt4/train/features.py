"""Filling the feature cache before training, so that the frozen vision encoder looks at each picture once."""

import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from ..data.mixture import Part
from ..data.source import StreamSource
from ..media.images import ImageInput
from ..model.feature_cache import FeatureCache
from ..model.modeling import MiniGPT4ForConditionalGeneration
from ..model.processing import MiniGPT4Processor
from .distributed import World
from .recipe import Recipe

log = logging.getLogger(__name__)

_AT_ONCE = 16


def wants_features(recipe: Recipe, model: MiniGPT4ForConditionalGeneration, parts: Sequence[Part], world: World) -> bool:
    """Whether to work from cached features: where the recipe says so, or it pays and is possible."""
    wish = recipe.data.cache_features
    frozen = not any(p.requires_grad for p in model.vision_tower.parameters())
    changing = any(isinstance(part.source, StreamSource) or part.crop or part.zoomed for part in parts)
    if wish is True and (changing or not frozen):
        log.warning("features cannot be cached: the vision encoder is trained, or a dataset is streamed or cropped")
    if wish is False or changing or not frozen:
        return False
    seen = recipe.steps * recipe.accumulate * recipe.data.batch * world.size
    return wish is True or seen > _distinct(parts, seen)  # if every picture is seen once, there is nothing to save


def _distinct(parts: Sequence[Part], enough: int) -> int:
    """How many different pictures the datasets have, counted no further than `enough`."""
    found: set[object] = set()
    for number, part in enumerate(parts):
        if isinstance(part.source, StreamSource):
            continue
        for index in range(len(part.source)):
            for place, image in enumerate(part.source.images(index)):  # those stored in rows have no name
                found.add(os.fspath(image) if isinstance(image, str | os.PathLike) else (number, index, place))
            if len(found) >= enough:
                return len(found)
    return len(found)


def fill(
    recipe: Recipe,
    model: MiniGPT4ForConditionalGeneration,
    processor: MiniGPT4Processor,
    parts: Sequence[Part],
    world: World,
) -> FeatureCache:
    """A cache that has every picture of the datasets, mirrored too where a dataset is, and those that validation asks about."""
    folder = Path(recipe.data.cache_folder) if recipe.data.cache_folder else None
    cache = FeatureCache(model, processor.image_processor, folder, connector_varies=recipe.trained.vision_dropout > 0)
    todo = cache.missing(_images(recipe, parts))[world.rank :: world.size]
    if todo:
        for group in _with_bar([todo[i : i + _AT_ONCE] for i in range(0, len(todo), _AT_ONCE)], world, cache.folder):
            cache.add(group)
    world.barrier()
    cache.refresh()
    if world.device.type == "cuda":
        model.vision_tower.to("cpu")  # everything it would see has been seen
        torch.cuda.empty_cache()
    return cache


def _images(recipe: Recipe, parts: Sequence[Part]) -> Iterator[tuple[ImageInput, bool]]:
    for part in parts:
        if isinstance(part.source, StreamSource):
            continue
        for index in range(len(part.source)):
            for image in part.source.images(index):
                yield image, False
                if part.mirror:
                    yield image, True
    for name in recipe.validation.images:
        yield name, False


def _with_bar(groups: list, world: World, folder: Path) -> Iterator[list]:
    if not world.leads:
        yield from groups
        return
    from rich.console import Console
    from rich.progress import track

    log.info("the vision encoder looks once at %d pictures; what it sees is kept in %s", sum(map(len, groups)), folder)
    yield from track(groups, "looking at pictures", console=Console(stderr=True))
