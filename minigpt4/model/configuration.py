"""One configuration for the whole family: vision encoder, connector, projection and language model, described as data."""

import math
from typing import Any, Literal

from transformers import AutoConfig, Blip2QFormerConfig, PreTrainedConfig

from .vision.shape import grid_and_width

CONNECTORS = ("concat", "qformer")
USUAL_SIZE = 224
CONCAT_ORDERS = ("row", "square")


class MiniGPT4Config(PreTrainedConfig):
    """Configuration of `MiniGPT4ForConditionalGeneration`.

    Args:
        vision_config: the vision encoder; any vision model of `transformers` that returns patch tokens in raster order
            (`Blip2VisionConfig` for EVA ViT-g, CLIP, SigLIP, DINOv2, `EfficientNetLiteConfig`, ...) or whose last feature map
            is a square grid (ConvNeXt, Swin, ResNet, ...).
        text_config: the language model; any causal language model of `transformers`.
        connector: ``"concat"`` joins `concat_factor` neighbouring patch tokens (MiniGPT-4 with Llama-2, MiniGPT-v2);
            ``"qformer"`` asks `num_query_tokens` learnt queries (MiniGPT-4 with Vicuna).
        concat_order: ``"row"`` joins consecutive tokens of a row, as published; ``"square"`` joins a square of
            patches, left to right and top to bottom inside it.
        position_octaves: octaves of sine and cosine of a patch's place that are joined to its token before the connector (four
            channels an octave); 0 for none, as in the papers, whose vision encoders know places by themselves.
        position_scale: how large those waves are. Beside a thousand channels a few of size 1 are hardly heard.
        class_tokens: image tokens for each list of class probabilities that the vision encoder gives
            (`EfficientNetLiteConfig.class_grids`), before those of the patches; the connector must be ``"concat"``.
        own_classes: classes of a classifier in the connector, which goes by the same features as the vision encoder's and makes
            one more list of probabilities; several numbers are several classifiers with a list each.
        qformer_config: the Q-Former, when `connector` asks for one.
        projection_depth: 1 is the one Linear of both papers; more put a GELU between Linears of the language model's width (the
            MiniGPT-4 paper's ablation has 3).
        lora: ``None`` or ``{"r", "alpha", "dropout", "target_modules"}``: low-rank adapters inside the language model.
        vision_feature_layer: which of the vision encoder's ``hidden_states`` to use; ``None`` takes ``last_hidden_state``.
        vision_norm_eps: epsilon of the vision encoder's last LayerNorm where it differs from that of its blocks (the published
            systems use 1e-5 there and 1e-6 in the blocks).
        image_token_id: the id that stands for one image token in ``input_ids``. It needs no row in the language model's
            embedding table.
        vision_source, text_source: where the frozen parts come from when only trained weights are stored: ``"pocket"``, a
            folder or a hub id. ``None`` when the weights are all in one place.
        base_source: a system whose weights the stored ones change, where the frozen parts are not those of `vision_source` and
            `text_source` as they are (adapters of an earlier stage merged into the language model, a trained vision encoder).
        base_adapters: what became of the adapters of `base_source`: ``"merged"`` into the language model that the stored
            weights change, ``"continued"`` as those of `lora`, or ``"none"`` of them is left. ``None`` in older files: those of
            one form are continued, others merged.
    """

    model_type = "minigpt4"
    sub_configs = {"vision_config": AutoConfig, "text_config": AutoConfig, "qformer_config": Blip2QFormerConfig}

    vision_config: Any = None
    text_config: Any = None
    connector: Literal["concat", "qformer"] = "concat"
    concat_factor: int = 4
    concat_order: Literal["row", "square"] = "row"
    position_octaves: int = 0
    position_scale: float = 1.0
    class_tokens: int = 0
    own_classes: int | list[int] = 0
    qformer_config: Any = None
    num_query_tokens: int = 32
    projection_depth: int = 1
    lora: dict[str, Any] | None = None
    vision_feature_layer: int | None = None
    vision_norm_eps: float | None = None
    image_token_id: int | None = None
    vision_source: str | None = None
    text_source: str | None = None
    base_source: str | None = None
    base_adapters: Literal["merged", "continued", "none"] | None = None
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs):
        kwargs.pop("task_generation", None)  # of older folders: see `checkpoints.folders.read_task_settings`
        if self.connector == "qformer" and self.qformer_config is None:
            self.qformer_config = {}
        self._take_older_positions()
        self.vision_config = _config_of(self.vision_config, "blip_2_vision_model")
        self.text_config = _config_of(self.text_config, "llama")
        if self.qformer_config is not None:
            self.qformer_config = _config_of(self.qformer_config, "blip_2_qformer")
        super().__post_init__(**kwargs)
        self.vision_config.image_size = _side(getattr(self.vision_config, "image_size", None))
        if self.connector not in CONNECTORS:
            raise ValueError(f"connector must be one of {CONNECTORS}, not {self.connector!r}")
        if self.concat_order not in CONCAT_ORDERS:
            raise ValueError(f"concat_order must be one of {CONCAT_ORDERS}, not {self.concat_order!r}")
        if self.projection_depth < 1:
            raise ValueError(f"projection_depth must be at least 1, not {self.projection_depth}")
        if self.position_octaves < 0:
            raise ValueError(f"position_octaves must be at least 0, not {self.position_octaves}")
        self._check_classes()
        qformer: Any = self.qformer_config
        if self.connector == "concat":
            self._check_concat()
        elif qformer.encoder_hidden_size != self.token_width:
            places = f" with {4 * self.position_octaves} position channels" if self.position_octaves else ""
            raise ValueError(
                f"the Q-Former reads tokens of width {qformer.encoder_hidden_size}, "
                f"but the vision encoder gives {self.token_width}{places}"
            )
        if self.image_token_id is None:
            self.image_token_id = self.text_config.vocab_size
        self.tie_word_embeddings = self.text_config.tie_word_embeddings

    def _take_older_positions(self) -> None:
        """Older files have the position channels in the vision encoder's part."""
        if isinstance(self.vision_config, dict) and "coordinates" in self.vision_config:
            vision = dict(self.vision_config)
            octaves, scale = vision.pop("coordinates"), vision.pop("coordinate_scale", 1.0)
            self.vision_config = vision
            if octaves:
                self.position_octaves, self.position_scale = octaves, scale

    def _check_classes(self) -> None:
        if self.class_tokens < 0:
            raise ValueError(f"class_tokens must be at least 0, not {self.class_tokens}")
        if self.own_classes != 0 and (not self.own_lists or min(self.own_lists) < 1):
            raise ValueError(f"own_classes must be 0, a number of classes, or several, not {self.own_classes!r}")
        lists = getattr(self.vision_config, "num_class_lists", 0)
        if bool(self.class_tokens) != bool(lists):
            raise ValueError(
                f"class_tokens is {self.class_tokens}, but the vision encoder gives {lists} lists of class "
                "probabilities (vision_config.class_grids): set both or neither"
            )
        if self.own_classes and not lists:
            raise ValueError("own_classes need what the vision encoder's classifier goes by (vision_config.class_grids)")
        if self.class_tokens and self.connector != "concat":
            raise ValueError(f"class_tokens need the connector 'concat', not {self.connector!r}")

    def _check_concat(self) -> None:
        k, grid = self.concat_factor, self.vision_grid
        side = math.isqrt(k)
        if self.concat_order == "square" and (side * side != k or grid % side):
            raise ValueError(f"concat_order 'square' cannot join {k} patches of a {grid} x {grid} grid into squares")
        if self.concat_order == "row" and grid * grid % k:
            raise ValueError(f"concat_order 'row' cannot join {grid} x {grid} patches by {k}")

    @property
    def image_size(self) -> int:
        """Side in pixels of the square picture that the vision encoder takes."""
        return self.vision_config.image_size

    @property
    def vision_grid(self) -> int:
        """Tokens along one side of the picture: patches, or cells of the last feature map."""
        return grid_and_width(self.vision_config)[0]

    @property
    def vision_width(self) -> int:
        """Channels of the vision encoder's tokens."""
        return grid_and_width(self.vision_config)[1]

    @property
    def token_width(self) -> int:
        """Channels of a token in the connector: the vision encoder's, and those that tell its place."""
        return self.vision_width + 4 * self.position_octaves

    @property
    def num_image_tokens(self) -> int:
        """Image tokens that the language model receives for one picture."""
        if self.connector == "qformer":
            return self.num_query_tokens
        return self.num_class_lists * self.class_tokens + self.vision_grid**2 // self.concat_factor

    @property
    def num_class_lists(self) -> int:
        """Lists of class probabilities: the vision encoder's, and those of one's own classes."""
        return getattr(self.vision_config, "num_class_lists", 0) + len(self.own_lists)

    @property
    def own_lists(self) -> list[int]:
        """Classes of each of one's own classifiers."""
        if isinstance(self.own_classes, int):
            return [self.own_classes] if self.own_classes else []
        return list(self.own_classes)

    @property
    def num_classes(self) -> int:
        """Classes of the vision encoder's classifier and one's own, in this order."""
        return getattr(self.vision_config, "num_classes", 0) + sum(self.own_lists)

    @property
    def class_channels(self) -> int:
        """Channels of the connector's output that are for class probabilities, after those of patches."""
        return self.class_tokens * self.num_classes if self.class_tokens else 0

    @property
    def connector_size(self) -> int:
        """Width of what the connector gives to the projection."""
        if self.connector == "qformer":
            return self.qformer_config.hidden_size
        return self.token_width * self.concat_factor + self.class_channels


def _side(size: Any) -> int:
    """The side of the square image of a vision encoder. One that takes any size does not say one: it gets the usual one."""
    if isinstance(size, list | tuple) and len(set(size)) == 1:
        return size[0]
    if size is not None and not isinstance(size, int):
        raise ValueError(f"the vision encoder takes images of {size}; expected one number of pixels")
    return USUAL_SIZE if size is None else size


def _config_of(given: Any, kind: str) -> PreTrainedConfig:
    """A part's configuration, as it is or made of what was written of it; of the usual kind where that is not said."""
    if isinstance(given, PreTrainedConfig):
        return given
    written = dict(given or {})
    return AutoConfig.for_model(written.pop("model_type", kind), **written)
