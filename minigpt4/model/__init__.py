"""What the network is: configuration, bridge, module, processor, and folders to load and save them.

Importing this package makes `transformers`' Auto classes know the family.
"""

from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
)

from .config import MiniGPT4Config
from .efficientnet_lite import EfficientNetLiteConfig, EfficientNetLiteModel
from .llama_tokenizer import LegacyLlamaTokenizer
from .minigpt4 import MiniGPT4ForConditionalGeneration
from .processor import MiniGPT4ImageProcessor, MiniGPT4Processor

AutoConfig.register("efficientnet_lite", EfficientNetLiteConfig)
AutoModel.register(EfficientNetLiteConfig, EfficientNetLiteModel)
AutoConfig.register("minigpt4", MiniGPT4Config)
AutoModelForImageTextToText.register(MiniGPT4Config, MiniGPT4ForConditionalGeneration)
AutoImageProcessor.register(MiniGPT4Config, MiniGPT4ImageProcessor)
AutoProcessor.register(MiniGPT4Config, MiniGPT4Processor)
AutoTokenizer.register(MiniGPT4Config, LegacyLlamaTokenizer)
