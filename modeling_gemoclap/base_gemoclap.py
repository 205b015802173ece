"""What the models share: an audio tower, its pooling, and what of it is trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn
from transformers.modeling_utils import PreTrainedModel

from .configuration_gemoclap import GEmoClapConfig
from .safety_gemoclap import check_weight_files, naming_pickles, tensors_sha256, weight_probe
from .towers_gemoclap import (
    applies_spec_augment,
    build_audio_tower,
    close_leaks,
    encode_frames,
    feature_encoder,
    ignores_padding,
    layer_classes,
    transformer_layers,
)

UNLABELLED_ENCODER = "an encoder on the clusters of speakers, without emotion labels"


class GEmoClapAudioPooling(nn.Module):
    """From a tower's frames to one vector.

    With `use_weighted_layer_sum` the frames are a learnt mean over all layers, else the last layer's. `"mean"` is the
    mean over true frames, `"mean_std"` has their standard deviation beside it, and `"self_attention"` is
    `softmax(W_c H^T) H` with a learnt vector `W_c` (Safari et al., 2020; eq. 1 of Xiang).
    """

    def __init__(self, config: GEmoClapConfig):
        super().__init__()
        audio = config.audio_config
        self.pooling = config.pooling
        self.output_size = audio.hidden_size * (2 if config.pooling == "mean_std" else 1)
        self.layer_weights = self.attention = None
        if config.use_weighted_layer_sum:
            self.layer_weights = nn.Parameter(torch.zeros(audio.num_hidden_layers + 1))
        if config.pooling == "self_attention":
            self.attention = nn.Linear(audio.hidden_size, 1, bias=False)

    def forward(self, states: list[torch.Tensor], mask: torch.Tensor | None) -> torch.Tensor:
        """Pool.

        Args:
            states: Hidden states, each `(batch, frames, hidden_size)`.
            mask: `(batch, frames)`, the true frames; None takes all as true. A clip without one has zero for a mean.

        Returns:
            `(batch, output_size)`.
        """
        hidden = states[-1]
        if self.layer_weights is not None:
            hidden = torch.einsum("l,lbth->bth", self.layer_weights.softmax(0).to(hidden.dtype), torch.stack(states))
        if mask is None:
            mask = hidden.new_ones(hidden.shape[:2])
        mask = mask[..., None].bool()
        hidden = hidden.masked_fill(~mask, 0)
        if self.attention is not None:  # not -inf: a clip without a true frame would have NaN for weights
            least = torch.finfo(hidden.dtype).min
            return (self.attention(hidden).masked_fill(~mask, least).softmax(1) * hidden).sum(1)
        count = mask.sum(1).clamp_min(1)
        precise = torch.promote_types(hidden.dtype, torch.float32)  # the sum over a long clip overflows float16
        mean = hidden.sum(1, dtype=precise) / count
        if self.pooling == "mean":
            return mean.to(hidden.dtype)
        variance = (hidden - mean[:, None]).masked_fill(~mask, 0).square().sum(1) / count
        return torch.cat([mean, (variance + 1e-7).sqrt()], -1).to(hidden.dtype)


class GEmoClapPreTrainedModel(PreTrainedModel):
    """What the contrastive model and the classifier share: the audio tower, its pooling, and what of it is trained."""

    config_class = GEmoClapConfig
    base_model_prefix = "gemoclap"
    main_input_name = "input_values"
    supports_gradient_checkpointing = True
    _supports_sdpa = True

    weights_are_new = True  # whether they are freshly initialised, and so have heard nothing
    pretrained_encoder: str | None = None  # the encoder that the audio tower was loaded from, as it is
    _probe: dict | None = None

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, output_loading_info: bool = False, **kwargs):
        """As transformers'; a model of which weights are new has no calibration temperature.

        What the weights have heard, `config.training_data` tells or does not.

        Args:
            pretrained_model_name_or_path: Name or path of a checkpoint.
            *args: For transformers.
            output_loading_info: Whether to return what was missing and what did not fit, too.
            **kwargs: For transformers, and fields of the configuration.

        Raises:
            ValueError: If the checkpoint is an adapter, its configuration names code, its weights are pickled
                objects, or its index names files elsewhere.
        """
        if pretrained_model_name_or_path is not None:
            check_weight_files(pretrained_model_name_or_path, kwargs)
        with naming_pickles(pretrained_model_name_or_path):
            model, report = super().from_pretrained(
                pretrained_model_name_or_path, *args, output_loading_info=True, **kwargs
            )
        missing = [name for name in report["missing_keys"] if not name.endswith("masked_spec_embed")]
        if missing or report["mismatched_keys"]:
            model.config.forget_calibration()
        model.weights_are_new = False
        model.note_weights()
        return (model, report) if output_loading_info else model

    def post_init(self) -> None:
        """As transformers', and name the layers that FSDP and device maps keep together: those that are there."""
        super().post_init()
        self._no_split_modules = layer_classes(self)
        self.note_weights()

    def started_from(self, encoder: str) -> GEmoClapPreTrainedModel:
        """Name the pretrained encoder that the audio tower was just loaded from, and take over its record, if any.

        Args:
            encoder: Name or path.
        """
        self.pretrained_encoder = encoder
        for config in (self.audio_model.config, self.config.audio_config):
            if records := config.__dict__.pop("training_data", None):
                stages = {True: UNLABELLED_ENCODER, False: "an audio encoder"}
                self.config.training_data = [
                    {"stage": stages["unlabelled" in record]} | record if "speakers" in record else record
                    for record in records
                ]
        self.note_weights()
        return self

    def note_weights(self) -> None:
        """Remember these weights as those that `config.training_data` is about; see `weights_as_noted`."""
        self._probe = weight_probe(self)

    def weights_as_noted(self) -> bool:
        """Whether the weights are those noted last: when they were made, loaded, or trained by our trainers."""
        now = weight_probe(self)
        return all(now.get(name) == values for name, values in (self._probe or {}).items())

    def check_history(self) -> None:
        """Where the weights are not those that the configuration's record is about, record that, and drop calibration.

        The record has a hash of the weights where one of our trainers wrote it.
        """
        recorded = getattr(self.config, "weights_sha256", None)
        if recorded and recorded != tensors_sha256(self.state_dict().values()):
            self.config.weights_sha256 = None
            self.forget_history("its weights are not those that its record of training is about")

    def forget_history(self, reason: str) -> None:
        """Record that something unknown has happened to the weights, and drop the calibration.

        Args:
            reason: What is known of it.
        """
        self.config.training_data = [*(self.config.training_data or []), {"unknown": reason}]
        self.config.forget_calibration()

    def _add_audio_tower(self, audio_model: PreTrainedModel | None) -> None:
        config = self.config
        self.weights_are_new = audio_model is None
        self.audio_model = close_leaks(audio_model or build_audio_tower(config.audio_config))
        self.main_input_name = self.audio_model.main_input_name
        self.audio_pooling = GEmoClapAudioPooling(config)
        if hasattr(self.audio_model, "masked_spec_embed") and not applies_spec_augment(config.audio_config):
            # It takes part in SpecAugment alone; a parameter without gradient would stall distributed training.
            self.audio_model.masked_spec_embed.requires_grad_(False)

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=self.config.initializer_range)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, GEmoClapAudioPooling) and module.layer_weights is not None:
            nn.init.zeros_(module.layer_weights)

    def pool_audio(
        self, input_values=None, input_features=None, audio_attention_mask=None, audio_frames=None
    ) -> torch.Tensor:
        """One vector a clip from the audio tower's true frames.

        Args:
            input_values: `(batch, samples)`, for towers that hear raw waves; for AST `(batch, frames, mel)`.
            input_features: `(batch, frames, mel)`, for spectrogram towers; for Whisper `(batch, mel, frames)`.
            audio_attention_mask: `(batch, samples or frames)`, 1 for true input and 0 for padding at the end.
            audio_frames: `(batch, frames, hidden_size)` in place of both: what `frames_of` gave, padded; the mask is
                then of these.

        Returns:
            `(batch, hidden_size)`, or twice that for `"mean_std"`; the same for a clip whatever it is batched with.

        Raises:
            ValueError: If not exactly one of the inputs is given, or the device lacks the model's precision.
        """
        if audio_frames is None:
            return self._run(self._pool, input_values, input_features, audio_attention_mask)
        if input_values is not None or input_features is not None:
            raise ValueError("give audio_frames, or what the tower hears, not both")
        return self.audio_pooling([audio_frames.to(self.dtype)], audio_attention_mask)

    def frames_of(
        self,
        input_values: torch.Tensor | None = None,
        input_features: torch.Tensor | None = None,
        audio_attention_mask: torch.Tensor | None = None,
    ) -> list[torch.Tensor]:
        """The audio tower's output for each clip, its true frames alone.

        Args:
            input_values: As for `pool_audio`.
            input_features: Likewise.
            audio_attention_mask: Likewise.

        Returns:
            One `(frames, hidden_size)` a clip.

        Raises:
            ValueError: As `pool_audio`.
        """

        def encode(inputs: torch.Tensor, mask: torch.Tensor | None) -> list[torch.Tensor]:
            states, true = encode_frames(self.audio_model, inputs, mask)
            if true is None:
                return list(states[-1])
            return [frames[own.bool()] for frames, own in zip(states[-1], true, strict=True)]

        return self._run(encode, input_values, input_features, audio_attention_mask)

    def layer_means(
        self,
        input_values: torch.Tensor | None = None,
        input_features: torch.Tensor | None = None,
        audio_attention_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Mean over a clip's true frames of what goes into the first Transformer layer and of what each layer gives.

        Args:
            input_values: As for `pool_audio`.
            input_features: Likewise.
            audio_attention_mask: Likewise.

        Returns:
            `(batch, layers + 1, hidden_size)`.

        Raises:
            ValueError: As `pool_audio`, or if the tower's layers run at another rate than its output (SEW).
        """

        def encode(inputs: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
            states, true = encode_frames(self.audio_model, inputs, mask, all_layers=True)
            stacked = torch.stack(states, 1)
            true = stacked.new_ones(stacked.shape[0], stacked.shape[2]) if true is None else true.to(stacked.dtype)
            return (stacked * true[:, None, :, None]).sum(2) / true.sum(1).clamp_min(1)[:, None, None]

        return self._run(encode, input_values, input_features, audio_attention_mask)

    def _run(self, encode: Callable, input_values, input_features, mask: torch.Tensor | None):
        """Encode a batch: together where padding is safe, else clips of one length at a time, none of them padded.

        `encode` goes from inputs `(batch, ...)` and their mask to a row, or an item of a list, for every clip.
        """
        if (input_values is None) == (input_features is None):
            raise ValueError("give input_values (raw waves) or input_features (spectrograms), one of the two")
        inputs = (input_features if input_values is None else input_values).to(self.dtype)
        with self._naming_lacking_precision():
            if mask is None or ignores_padding(self.config.audio_config):
                return encode(inputs, mask)
            lengths, order, parts = mask.sum(1), [], []
            lengths = lengths.masked_fill(lengths == 0, mask.shape[1])  # nothing true: there is no clip to cut out
            for length in lengths.unique().tolist():
                rows = (lengths == length).nonzero()[:, 0]
                order.append(rows)
                parts.append(encode(inputs[rows, :length], None))
        places = torch.cat(order).argsort()
        if isinstance(parts[0], torch.Tensor):
            return torch.cat(parts)[places]
        items = [item for part in parts for item in part]
        return [items[place] for place in places.tolist()]

    @contextmanager
    def _naming_lacking_precision(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            if "not implemented for" not in str(error):
                raise
            raise ValueError(
                f"this {self.device.type} cannot run the model in {self.dtype} ({error}): "
                f"load it with dtype=torch.float32, or dtype=torch.bfloat16"
            ) from None

    def _pool(self, inputs: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        states, frames = encode_frames(self.audio_model, inputs, mask, self.config.use_weighted_layer_sum)
        return self.audio_pooling(states, frames)

    def freeze_feature_projection(self) -> None:
        """Train nothing of what brings the convolutions' output to the Transformer's width.

        Raises:
            ValueError: If the audio tower has no such part.
        """
        if not hasattr(self.audio_model, "feature_projection"):
            kind = self.config.audio_config.model_type
            raise ValueError(
                f"freeze_feature_projection: a {kind!r} model has no feature projection; leave it out, or where a "
                f"configuration file has it, give --freeze_feature_projection false"
            )
        self.audio_model.feature_projection.requires_grad_(False)

    def freeze_feature_encoder(self) -> None:
        """Train no convolution (or patch) that hears the signal; the Transformer layers go on learning.

        Raises:
            ValueError: If the audio tower has none that can be told.
        """
        for module in feature_encoder(self.audio_model):
            module.requires_grad_(False)
            module._requires_grad = False  # or transformers would keep the graph of it in training

    def freeze_audio_encoder(self) -> None:
        """Train nothing of the audio tower; its pooling and projection or head go on learning."""
        self.audio_model.requires_grad_(False)
        for module in self.audio_model.modules():
            if hasattr(module, "_requires_grad"):
                module._requires_grad = False

    def unfreeze_last_n_layers(self, n: int) -> None:
        """Freeze the audio tower but for its last Transformer layers.

        Args:
            n: How many layers are trained.

        Raises:
            ValueError: If the tower has fewer.
        """
        _, layers = transformer_layers(self.audio_model)
        if not 0 <= n <= len(layers):
            raise ValueError(f"unfreeze_last_n_layers={n}: the audio tower has {len(layers)} layers")
        self.freeze_audio_encoder()
        for layer in layers[len(layers) - n :]:
            layer.requires_grad_(True)


def split_by_tower(options: dict) -> tuple[dict, dict, dict]:
    """Options of the whole, of the audio tower and of the text tower; `text_pooling` is the whole's."""
    parts: tuple[dict, dict, dict] = {}, {}, {}
    for name, value in options.items():
        part = 1 if name.startswith("audio_") else 2 if name.startswith("text_") and name != "text_pooling" else 0
        name = name.removeprefix(("", "audio_", "text_")[part])
        if part and name in ("dtype", "torch_dtype"):
            raise ValueError("towers and projections have one precision: give dtype, not audio_dtype or text_dtype")
        parts[part][name] = value
    return parts


def precision_of(options: dict) -> torch.dtype:
    """Take `dtype`, as transformers spells it, out of the options; float32 where there is none."""
    value = options.pop("torch_dtype", None)
    value = options.pop("dtype", value)
    dtype = torch.float32 if value in (None, "auto") else getattr(torch, str(value).removeprefix("torch."), None)
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"dtype={value!r} is not known; give torch.bfloat16, torch.float16 or torch.float32")
    return dtype
