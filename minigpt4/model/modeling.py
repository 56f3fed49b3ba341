"""The network: a frozen vision encoder, a connector, one trained projection, a frozen language model.

    pixel_values -> vision_tower -> vision_tokens -> connector -> connector_features -> projection -> image_embeds
                                                      input_ids -> word embeddings with image_embeds put in -> language model

Every stage may be given in place of the one before it, so that what is frozen need be computed only once. Shapes: B rows,
S positions, P pictures, T vision encoder tokens, V the vision encoder's width, K image tokens a picture, W the connector's
width, H the language model's width.
"""

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    Cache,
    DynamicCache,
    GenerationMixin,
    LogitsProcessorList,
    PreTrainedConfig,
    PreTrainedModel,
    RepetitionPenaltyLogitsProcessor,
)
from transformers.utils import ModelOutput

from .configuration import MiniGPT4Config
from .connector import CONNECTORS
from .loss import frozen_head_cross_entropy, has_plain_frozen_head
from .packing import packed_attention_mask

IGNORE = -100  # a label that carries no loss


@dataclass
class MiniGPT4Output(ModelOutput):
    """What `forward` returns.

    Args:
        loss: mean negative log likelihood of the supervised tokens (a scalar), when labels were given.
        logits: (B, S, vocabulary); when labels were given only those that predict a supervised token, row by row:
            (supervised tokens, vocabulary).
        past_key_values, hidden_states, attentions: as the language model returns them.
        image_embeds: (P, K, H), what the language model received for the pictures.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    past_key_values: Cache | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    image_embeds: torch.Tensor | None = None


class MiniGPT4ForConditionalGeneration(PreTrainedModel, GenerationMixin):
    """The MiniGPT-4 family: MiniGPT-4 with Vicuna or Llama-2, MiniGPT-v2, the pocket model, and your own pair.

    Sources: MiniGPT-4 (arXiv 2304.10592), section 3; MiniGPT-v2 (arXiv 2310.09478), section 2.
    """

    config_class = MiniGPT4Config
    base_model_prefix = "model"
    main_input_name = "input_ids"
    input_modalities = ("image", "text")
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _skip_keys_device_placement = ["past_key_values"]
    _keys_to_ignore_on_load_unexpected = [r"\.lora_[AB]\."]  # `load_system` merges them itself when it wants no adapters

    def __init__(
        self,
        config: MiniGPT4Config,
        vision_tower: PreTrainedModel | None = None,
        language_model: PreTrainedModel | None = None,
    ):
        """Build from `config`; a vision encoder or a language model that is already loaded is taken as it is."""
        super().__init__(config)
        self.vision_tower, self.connector, self.projection = image_parts(config, vision_tower)
        if language_model is None:
            language_model = AutoModelForCausalLM.from_config(config.text_config)
        self.language_model = language_model
        self.get_output_embeddings().register_forward_pre_hook(_side_by_side)
        # a language model may come with its adapters
        if config.lora is not None and not hasattr(language_model, "peft_config"):
            from .adapters import add_lora

            add_lora(self.language_model, config.lora)
        self.generation_config = self.language_model.generation_config
        self.post_init()

    @property
    def device(self) -> torch.device:
        """Where text goes in; the vision encoder may be elsewhere (its outputs are brought here)."""
        return next(self.get_input_embeddings().parameters()).device

    def get_input_embeddings(self) -> nn.Module:
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.language_model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        return self.language_model.get_output_embeddings()

    def set_output_embeddings(self, value: nn.Module) -> None:
        self.language_model.set_output_embeddings(value)
        value.register_forward_pre_hook(_side_by_side)

    def train(self, mode: bool = True):
        """Training mode for what is trained; a frozen vision encoder or connector stays in evaluation mode (no dropout, fixed
        norms).

        Batch norms keep their statistics in any case: those of a step's few pictures would be worse, and another model's.
        """
        super().train(mode)
        for part in (self.vision_tower, self.connector):
            if not any(p.requires_grad for p in part.parameters()):
                part.eval()
        for module in self.vision_tower.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self

    # pictures ------------------------------------------------------------------------------------------------------

    def get_vision_tokens(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """The vision encoder alone: (P, 3, side, side) -> (P, T, V). A frozen vision encoder keeps nothing for a backward
        pass."""
        trained = any(p.requires_grad for p in self.vision_tower.parameters())
        layer = self.config.vision_feature_layer
        with torch.set_grad_enabled(trained and torch.is_grad_enabled()):
            vision = next(self.vision_tower.parameters())
            pixel_values = pixel_values.to(vision.device, vision.dtype)
            out = self.vision_tower(pixel_values, output_hidden_states=layer is not None)
        tokens = out.last_hidden_state if layer is None else out.hidden_states[layer]
        return tokens.flatten(2).transpose(1, 2) if tokens.ndim == 4 else tokens  # a feature map: (P, V, G, G)

    def get_connector_features(self, vision_tokens: torch.Tensor) -> torch.Tensor:
        """The connector alone: (P, T, V) -> (P, K, W)."""
        return self.connector(vision_tokens.to(self.device))

    def get_image_features(
        self,
        pixel_values: torch.Tensor | None = None,
        *,
        vision_tokens: torch.Tensor | None = None,
        connector_features: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """What the language model receives for pictures: (P, K, H), from whichever stage is given."""
        if connector_features is None:
            if vision_tokens is None:
                if pixel_values is None:
                    raise ValueError("give pixel_values, vision_tokens or connector_features")
                vision_tokens = self.get_vision_tokens(pixel_values)
            connector_features = self.get_connector_features(vision_tokens)
        first = next(self.projection.parameters())
        return self.projection(connector_features.to(first.device, first.dtype))

    def embed(self, input_ids: torch.Tensor, image_embeds: torch.Tensor | None = None) -> torch.Tensor:
        """Word embeddings with the pictures put in: (B, S) and (P, K, H) -> (B, S, H).

        Pictures are taken in order, row by row; each takes K consecutive ids equal to ``config.image_token_id``.

        Raises:
            ValueError: placeholders and pictures differ in number.
        """
        here_BS = input_ids == self.config.image_token_id
        # The placeholder's id lies outside the language model's vocabulary: any id will do until the picture takes its place.
        embeds_BSH = self.get_input_embeddings()(input_ids.masked_fill(here_BS, 0))
        given = 0 if image_embeds is None else image_embeds.shape[0] * image_embeds.shape[1]
        wanted = int(here_BS.sum())
        if wanted != given:
            k = self.config.num_image_tokens
            raise ValueError(
                f"the text has places for {wanted / k:g} picture(s) ({wanted} image tokens), "
                f"but {given / k:g} picture(s) ({given} image tokens) were given"
            )
        if image_embeds is None:
            return embeds_BSH
        image_embeds = image_embeds.to(embeds_BSH.device, embeds_BSH.dtype)
        return embeds_BSH.masked_scatter(here_BS.unsqueeze(-1), image_embeds)

    # text ----------------------------------------------------------------------------------------------------------

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        *,
        vision_tokens: torch.Tensor | None = None,
        connector_features: torch.Tensor | None = None,
        image_embeds: torch.Tensor | None = None,
        example_ids: torch.Tensor | None = None,
        branch_ids: torch.Tensor | None = None,
        label_factors: torch.Tensor | None = None,
        num_items_in_batch: int | float | torch.Tensor | None = None,
        loss_only: bool = False,
        logits_to_keep: int | torch.Tensor = 0,
        **kwargs,
    ) -> MiniGPT4Output:
        """Run the language model over text with pictures in it.

        Args:
            input_ids: (B, S), `config.image_token_id` at the places of image tokens.
            pixel_values, vision_tokens, connector_features, image_embeds: the pictures, at any one stage.
            attention_mask: (B, S), 1 for real positions; or a 4-D mask as `transformers` takes it.
            labels: (B, S), `IGNORE` where there is no loss; not shifted. With labels, the LM head runs over the
                positions that predict a supervised token and no others.
            example_ids, branch_ids: (B, S), for packed rows: see `packing`.
            label_factors: (B, S), by which the loss of each label is multiplied (a reward, say).
            num_items_in_batch: divides the summed loss in place of this batch's own number of supervised tokens, so
                that accumulation steps and ranks of unequal length weigh every token alike.
            loss_only: with labels, do not return logits; where the head is frozen and plain they then never all exist.
        """
        if inputs_embeds is None:
            if input_ids is None:
                raise ValueError("give input_ids or inputs_embeds")
            if image_embeds is None and not (pixel_values is None and vision_tokens is None and connector_features is None):
                image_embeds = self.get_image_features(
                    pixel_values, vision_tokens=vision_tokens, connector_features=connector_features
                )
            inputs_embeds = self.embed(input_ids, image_embeds)
        if example_ids is not None:
            attention_mask = packed_attention_mask(example_ids, branch_ids, inputs_embeds.dtype)
        run = {
            "inputs_embeds": inputs_embeds,
            "attention_mask": attention_mask,
            "position_ids": position_ids,
            "past_key_values": past_key_values,
            **kwargs,
        }
        if labels is None:
            out = self.language_model(logits_to_keep=logits_to_keep, **run)
            return self._output(out, image_embeds=image_embeds)

        targets_BS = F.pad(labels[:, 1:], (0, 1), value=IGNORE)  # position s predicts token s + 1
        supervised_BS = targets_BS != IGNORE
        targets_N = targets_BS[supervised_BS]
        factors_N = None if label_factors is None else F.pad(label_factors[:, 1:], (0, 1))[supervised_BS]
        count = len(targets_N) if num_items_in_batch is None else num_items_in_batch
        if loss_only and has_plain_frozen_head(self.language_model):
            out = self.language_model.get_decoder()(use_cache=False, **run)
            head_VH = next(self.get_output_embeddings().parameters())
            loss = frozen_head_cross_entropy(out.last_hidden_state[supervised_BS], head_VH, targets_N, factors_N)
            return self._output(out, image_embeds=image_embeds, loss=loss / count)
        with _only_rows(self.get_output_embeddings(), supervised_BS):
            out = self.language_model(use_cache=False, **run)
        logits = out.logits[0]
        losses_N = F.cross_entropy(logits.float(), targets_N, reduction="none")
        loss = (losses_N if factors_N is None else losses_N * factors_N).sum()
        return self._output(out, image_embeds=image_embeds, loss=loss / count, logits=None if loss_only else logits)

    @staticmethod
    def _output(out: ModelOutput, **ours) -> MiniGPT4Output:
        theirs = {k: out.get(k) for k in ("logits", "past_key_values", "hidden_states", "attentions")}
        return MiniGPT4Output(**(theirs | ours))

    @torch.no_grad()
    def generate(
        self,
        input_ids: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        *,
        image_embeds: torch.Tensor | None = None,
        **kwargs,
    ) -> torch.Tensor:
        """`transformers` generation from text with pictures in it; returns the new tokens alone, (B, new).

        The prompt enters as embeddings, as in the published systems: processors that look at past tokens (repetition
        penalty, n-gram blocking) see what was generated and not the prompt. Batches are padded on the left; a row that
        has ended is filled with the pad token while the others go on.

        `input_ids` beside `inputs_embeds` (B, n) count as generated already: processors see them, and they are returned in
        front of the new tokens.

        Beams, and several sequences to be returned, share what their prompt gave: it is read once, not once for each.
        """
        begun = {} if inputs_embeds is None or input_ids is None else {"input_ids": input_ids}
        if inputs_embeds is None:
            if input_ids is None:
                raise ValueError("give input_ids or inputs_embeds")
            if image_embeds is None and pixel_values is not None:
                image_embeds = self.get_image_features(pixel_values)
            inputs_embeds = self.embed(input_ids, image_embeds)
        if attention_mask is None:
            attention_mask = torch.ones(inputs_embeds.shape[:2], dtype=torch.long, device=inputs_embeds.device)
        settings = copy.deepcopy(kwargs.pop("generation_config", None) or self.generation_config)
        others = settings.update(**kwargs)  # what is no setting: streamers, criteria, processors
        if settings.repetition_penalty not in (None, 1.0):
            # The library takes the row's padding off the ids it looks at, as if the prompt were among them; it is not.
            penalty = RepetitionPenaltyLogitsProcessor(settings.repetition_penalty)
            others["logits_processor"] = LogitsProcessorList([penalty, *others.get("logits_processor", [])])
            settings.repetition_penalty = None
        copies = max(settings.num_beams or 1, settings.num_return_sequences or 1)
        recurrent = getattr(self.language_model, "_is_stateful", False)  # such a language model has no keys and values to share
        plain = settings.use_cache is not False and settings.cache_implementation in (None, "dynamic")
        begins = not begun and "past_key_values" not in others and inputs_embeds.shape[1] > 1
        if copies > 1 and plain and begins and not recurrent:
            others["past_key_values"] = self._read_once(inputs_embeds, attention_mask, copies)
        with warnings.catch_warnings():  # the library warns that processors do not see the prompt, as is said above
            warnings.filterwarnings("ignore", message=r"Passing .* with `inputs_embeds` and without `input_ids`")
            return self.language_model.generate(
                **begun, inputs_embeds=inputs_embeds, attention_mask=attention_mask, generation_config=settings, **others
            )

    @torch.no_grad()
    def _read_once(self, inputs_embeds: torch.Tensor, attention_mask: torch.Tensor, copies: int) -> DynamicCache:
        """Keys and values of prompts without their last token, as many times as each is to be gone on with: the library would
        have the language model read as many copies."""
        cache, mask_BS = DynamicCache(config=self.language_model.config), attention_mask[:, :-1]
        self.language_model(
            inputs_embeds=inputs_embeds[:, :-1],
            attention_mask=mask_BS,
            position_ids=(mask_BS.cumsum(-1) - 1).clamp(min=0),
            past_key_values=cache,
            logits_to_keep=1,
        )
        cache.batch_repeat_interleave(copies)
        return cache


def vision_class(config: PreTrainedConfig) -> Any:
    """The class that builds or loads a vision encoder of this configuration."""
    if config.model_type == "blip_2_vision_model":  # `transformers` has it, but AutoModel does not know it
        from transformers import Blip2VisionModel

        return Blip2VisionModel
    return AutoModel


def image_parts(
    config: MiniGPT4Config, vision_tower: PreTrainedModel | None = None
) -> tuple[PreTrainedModel, nn.Module, nn.Module]:
    """What makes image tokens of images: vision encoder (the given one, or a new one), connector and projection."""
    tower = _new_vision_tower(config.vision_config) if vision_tower is None else vision_tower
    if config.vision_norm_eps is not None:
        tower.post_layernorm.eps = config.vision_norm_eps
    projection = _projection(config.connector_size, config.text_config.hidden_size, config.projection_depth)
    return tower, CONNECTORS[config.connector](config), projection


def _new_vision_tower(config: PreTrainedConfig) -> PreTrainedModel:
    kind = vision_class(config)
    return kind.from_config(config) if kind is AutoModel else kind(config)


def _projection(size_in: int, size_out: int, depth: int) -> nn.Module:
    """One Linear (both papers), or `depth` Linears with GELU between them."""
    if depth == 1:
        return nn.Linear(size_in, size_out)
    layers: list[nn.Module] = [nn.Linear(size_in, size_out)]
    for _ in range(depth - 1):
        layers += [nn.GELU(), nn.Linear(size_out, size_out)]
    return nn.Sequential(*layers)


def _side_by_side(head: nn.Module, args: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
    """The same rows next to each other in memory. `logits_to_keep` leaves them where they were, in a longer tensor, and torch
    then multiplies them with a frozen head one by one: on a CPU 16 rows take 0.8 s in place of 5 ms (benchmarks/RESULTS.md)."""
    return (args[0].flatten().view(args[0].shape),)


@contextmanager
def _only_rows(head: nn.Module, rows_BS: torch.Tensor) -> Iterator[None]:
    """Let the LM head see the chosen positions alone: (B, S, H) -> (1, chosen, H).

    A hook rather than a call of our own, because a language model may do more after its head than a product (soft caps,
    scales).
    """
    handle = head.register_forward_pre_hook(lambda _, args: (args[0][rows_BS].unsqueeze(0),))
    try:
        yield
    finally:
        handle.remove()
