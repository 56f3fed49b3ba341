"""Filling the feature cache before training, so that the frozen vision encoder looks at each picture once."""

import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from ..data.mixture import Part
from ..data.source import StreamSource
from ..errors import UserError
from ..io.progress import each
from ..media.images import ImageInput
from ..model.feature_cache import FeatureCache, NotKept
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
) -> FeatureCache | None:
    """A cache that has every picture of the datasets, mirrored too where a dataset is, and those that validation asks about.

    Returns:
        None where it cannot be written and the recipe leaves it open whether there is one: features are then computed.

    Raises:
        UserError: an image that cannot be read; a cache that the recipe asks for and that cannot be written.
    """
    fault: NotKept | None = None
    cache = None
    try:
        cache = _filled(recipe, model, processor, parts, world)
    except NotKept as error:
        fault = error
    told = [text for text in world.gather(None if fault is None else str(fault)) if text is not None]
    if told and recipe.data.cache_features is True:
        raise fault or UserError(told[0])
    if told:
        log.warning("%s (the run goes on without)", told[0])
        return None
    assert cache is not None
    cache.refresh()
    if world.device.type == "cuda":
        model.vision_tower.to("cpu")  # everything it would see has been seen
        torch.cuda.empty_cache()
    return cache


def _filled(
    recipe: Recipe, model: MiniGPT4ForConditionalGeneration, processor: MiniGPT4Processor, parts: Sequence[Part], world: World
) -> FeatureCache:
    """The cache, with this process' share of what was missing."""
    folder = Path(recipe.data.cache_folder) if recipe.data.cache_folder else None
    cache = FeatureCache(model, processor.image_processor, folder, connector_varies=recipe.trained.vision_dropout > 0)
    # Some at a time: images that are stored in rows are in memory here.
    waiting: list[tuple[str, ImageInput, bool]] = []
    for shown in _counted(recipe, parts, world, cache.folder):
        mine = (item for item in cache.missing(shown) if int(item[0][:8], 16) % world.size == world.rank)
        waiting += [item for item in mine if item[0] not in {key for key, *_ in waiting}]
        while len(waiting) >= _AT_ONCE:
            cache.add(waiting[:_AT_ONCE])
            del waiting[:_AT_ONCE]
    if waiting:
        cache.add(waiting)
    return cache


def _images(recipe: Recipe, parts: Sequence[Part]) -> Iterator[list[tuple[ImageInput, bool]]]:
    """The images of each sample, and whether they are wanted mirrored; at last those that validation asks about."""
    for part in parts:
        if isinstance(part.source, StreamSource):
            continue
        for index in range(len(part.source)):
            images = part.source.images(index)
            yield [(image, mirrored) for image in images for mirrored in ((False, True) if part.mirror else (False,))]
    yield [(name, False) for name in recipe.validation.images]


def _counted(recipe: Recipe, parts: Sequence[Part], world: World, folder: Path) -> Iterator[list[tuple[ImageInput, bool]]]:
    """`_images`; the process that speaks for all tells how far it is."""
    if not world.leads:
        yield from _images(recipe, parts)
        return
    log.info("the vision encoder looks once at each image; what it sees is kept in %s", folder)
    total = 1 + sum(len(part.source) for part in parts if not isinstance(part.source, StreamSource))
    yield from each(_images(recipe, parts), "looking at images", total)
