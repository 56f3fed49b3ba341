"""What the network is: configuration, connector, module, processor, and folders to load and save them.

Importing this package makes `transformers`' Auto classes know the family.
"""

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
)
from transformers.models.auto.image_processing_auto import AutoImageProcessor  # of its own, it needs no torchvision in 5.16

from .configuration import MiniGPT4Config
from .legacy_llama_tokenizer import LegacyLlamaTokenizer
from .modeling import MiniGPT4ForConditionalGeneration
from .processing import MiniGPT4ImageProcessor, MiniGPT4Processor
from .vision.efficientnet_lite import EfficientNetLiteConfig, EfficientNetLiteModel

AutoConfig.register("efficientnet_lite", EfficientNetLiteConfig)
AutoModel.register(EfficientNetLiteConfig, EfficientNetLiteModel)
AutoConfig.register("minigpt4", MiniGPT4Config)
AutoModelForImageTextToText.register(MiniGPT4Config, MiniGPT4ForConditionalGeneration)
AutoImageProcessor.register(MiniGPT4Config, MiniGPT4ImageProcessor)
AutoProcessor.register(MiniGPT4Config, MiniGPT4Processor)
AutoTokenizer.register(MiniGPT4Config, LegacyLlamaTokenizer)
