"""Images as a vision encoder takes them."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from .images import ImageInput, open_image


def resized(image: ImageInput, size: int) -> np.ndarray:
    """One image as (size, size, 3) bytes: RGB, bicubic, whatever its aspect."""
    return np.asarray(open_image(image).resize((size, size), Image.Resampling.BICUBIC))


def normalised(images: Sequence[np.ndarray], mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """`resized` images as (P, 3, size, size) float32, scaled to [0, 1] and normalised.

    The order of operations is that of torchvision's ToTensor and Normalize, so the values agree to the last bit.
    """
    pixels = np.stack(images).transpose(0, 3, 1, 2).astype(np.float32)
    pixels /= 255
    pixels -= np.array(mean, np.float32)[:, None, None]
    pixels /= np.array(std, np.float32)[:, None, None]
    return np.ascontiguousarray(pixels)
