"""The family inside vLLM: our vision encoder, connector and projection; its language model, cache and scheduler.

Read by vLLM alone, which `vllm_plugin` tells of it. What is asked must have gone through the folder's own chat template: it
writes ``<ImageHere>`` where an image stands, and breaks it where a person has typed it.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from transformers import BatchFeature
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from vllm.config import VllmConfig
from vllm.model_executor.models.interfaces import SupportsMultiModal
from vllm.model_executor.models.module_mapping import MultiModelKeys
from vllm.model_executor.models.utils import AutoWeightsLoader, init_vllm_registered_model, maybe_prefix
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.multimodal.inputs import MultiModalFieldConfig
from vllm.multimodal.processing import (
    BaseDummyInputsBuilder,
    BaseMultiModalProcessor,
    BaseProcessingInfo,
    PromptReplacement,
    PromptUpdate,
)

from ..model.configuration import MiniGPT4Config
from ..model.modeling import MiniGPT4ForConditionalGeneration, image_parts
from ..model.processing import MiniGPT4Processor
from ..prompt.templates import PLACEHOLDER


class Info(BaseProcessingInfo):
    """What vLLM wants to know of our images: any number in a prompt, each of the same number of tokens."""

    def get_hf_processor(self, **kwargs: object) -> MiniGPT4Processor:
        return self.ctx.get_hf_processor(MiniGPT4Processor, **kwargs)

    def get_supported_mm_limits(self) -> Mapping[str, int | None]:
        return {"image": None}

    def get_mm_max_tokens_per_item(self, seq_len: int, mm_counts: Mapping[str, int]) -> Mapping[str, int]:
        return {"image": self.get_hf_config().num_image_tokens}


class DummyInputs(BaseDummyInputsBuilder[Info]):
    """A prompt for vLLM to measure its memory with."""

    def get_dummy_text(self, mm_counts: Mapping[str, int]) -> str:
        return PLACEHOLDER * mm_counts.get("image", 0)

    def get_dummy_mm_data(self, seq_len: int, mm_counts: Mapping[str, int], mm_options: Mapping[str, Any]) -> Any:
        side, count = self.info.get_hf_config().image_size, mm_counts.get("image", 0)
        overrides = mm_options.get("image")
        return {"image": self._get_dummy_images(width=side, height=side, num_images=count, overrides=overrides)}


class Processor(BaseMultiModalProcessor[Info]):
    """Images become pixels by our processor; the one id that stands for an image becomes as many as it has tokens."""

    def _get_mm_fields_config(
        self, hf_inputs: BatchFeature, hf_processor_mm_kwargs: Mapping[str, object]
    ) -> Mapping[str, MultiModalFieldConfig]:
        return {"pixel_values": MultiModalFieldConfig.batched("image")}

    def _get_prompt_updates(
        self, mm_items: Any, hf_processor_mm_kwargs: Mapping[str, object], out_mm_kwargs: Any
    ) -> Sequence[PromptUpdate]:
        config = self.info.get_hf_config()
        one = [config.image_token_id]
        return [PromptReplacement(modality="image", target=one, replacement=one * config.num_image_tokens)]


@MULTIMODAL_REGISTRY.register_processor(Processor, info=Info, dummy_inputs=DummyInputs)
class MiniGPT4ForVLLM(nn.Module, SupportsMultiModal):
    """The network with the names of our weights, as vLLM runs it."""

    get_vision_tokens = MiniGPT4ForConditionalGeneration.get_vision_tokens
    get_connector_features = MiniGPT4ForConditionalGeneration.get_connector_features
    get_image_features = MiniGPT4ForConditionalGeneration.get_image_features
    language_model: Any

    @classmethod
    def get_placeholder_str(cls, modality: str, i: int) -> str | None:
        return PLACEHOLDER

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = ""):
        super().__init__()
        self.config: MiniGPT4Config = vllm_config.model_config.hf_config
        text = self.config.text_config
        theirs: Any = self  # the methods of vLLM's interface, which type checkers cannot see here
        with theirs._mark_tower_model(vllm_config, "image"):
            self.vision_tower, self.connector, self.projection = image_parts(self.config)
            self.to(vllm_config.model_config.dtype)
        with theirs._mark_language_model(vllm_config):
            self.language_model = init_vllm_registered_model(
                vllm_config=vllm_config,
                hf_config=text,
                architectures=text.architectures or [MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[text.model_type]],
                prefix=maybe_prefix(prefix, "language_model"),
            )
        theirs.configure_mm_token_handling(text.vocab_size, [self.config.image_token_id])
        self.make_empty_intermediate_tensors = self.language_model.make_empty_intermediate_tensors

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return next(self.projection.parameters()).device

    def embed_multimodal(self, **kwargs: Any) -> Any:
        """``pixel_values`` (P, 3, side, side) -> (P, K, H)."""
        pixels = kwargs.get("pixel_values")
        return [] if pixels is None else self.get_image_features(pixels)

    def embed_input_ids(self, input_ids: torch.Tensor, multimodal_embeddings: Any = None, *, is_multimodal: Any = None) -> Any:
        """Word embeddings (N, H) with images put in.

        A prompt that was not written by our template may have more ``<ImageHere>`` than images. Their id is no word: looked up,
        it would end the engine for everybody. They become the first word of the vocabulary instead.
        """
        words = input_ids.masked_fill(input_ids >= self.config.text_config.vocab_size, 0)
        return super().embed_input_ids(words, multimodal_embeddings, is_multimodal=is_multimodal)

    def forward(
        self,
        input_ids: torch.Tensor | None,
        positions: torch.Tensor,
        intermediate_tensors: Any = None,
        inputs_embeds: torch.Tensor | None = None,
        **kwargs: object,
    ) -> Any:
        """Hidden states of the language model: (N, H)."""
        return self.language_model.model(input_ids, positions, intermediate_tensors, inputs_embeds=inputs_embeds)

    def compute_logits(self, hidden_states: torch.Tensor) -> torch.Tensor | None:
        """(N, H) -> (N, vocabulary)."""
        return self.language_model.compute_logits(hidden_states)

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> set[str]:
        """Take the weights of an exported folder."""
        return AutoWeightsLoader(self).load_weights(weights)

    def get_mm_mapping(self) -> MultiModelKeys:
        """Which part is which."""
        return MultiModelKeys.from_string_field(
            language_model="language_model", connector=["connector", "projection"], tower_model="vision_tower"
        )
