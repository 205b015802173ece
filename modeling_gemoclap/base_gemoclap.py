"""Base classes of the models: the audio tower, its pooling, freezing, and the record of its weights."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn
from transformers.modeling_utils import PreTrainedModel

from .attention_gemoclap import IMPLEMENTATIONS
from .configuration_gemoclap import GEmoClapConfig
from .encoding_gemoclap import applies_spec_augment, encode_frames, ignores_padding, mask_padding_leaks
from .frozen_gemoclap import FreezableTowers, frozen_states, run_last_layers
from .heads_gemoclap import GEmoClapAudioPooling
from .safety_gemoclap import check_weight_files, explain_unsafe_pickle, tensors_sha256, weight_probe
from .towers_gemoclap import build_audio_tower, layer_classes, load_audio_tower

UNLABELLED_ENCODER = "an encoder on the clusters of speakers, without emotion labels"


class GEmoClapPreTrainedModel(FreezableTowers, PreTrainedModel):
    """Base class of all models: an audio tower with pooling, freezing, and the record of its weights."""

    config_class = GEmoClapConfig
    base_model_prefix = "gemoclap"
    main_input_name = "input_values"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flex_attn = True

    weights_are_new = True  # whether the weights are randomly initialised
    pretrained_encoder: str | None = None  # name or path of the encoder from which the audio tower was loaded
    _probe: dict | None = None

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, output_loading_info: bool = False, **kwargs):
        """Load a model as in transformers, after checking the files of the checkpoint.

        If weights are missing from the checkpoint, the calibration temperature is removed. `config.training_data`
        records the data on which the weights were trained.

        Args:
            pretrained_model_name_or_path: Name or path of a checkpoint.
            *args: Positional arguments of transformers' method.
            output_loading_info: Whether to also return the report on missing and mismatched weights.
            **kwargs: Keyword arguments of transformers' method, and fields of the configuration.

        Raises:
            ValueError: If the checkpoint is an adapter, if its configuration names code, if its weights are pickled
                objects, or if its index names files elsewhere.
        """
        if pretrained_model_name_or_path is not None:
            check_weight_files(pretrained_model_name_or_path, kwargs)
        with explain_unsafe_pickle(pretrained_model_name_or_path):
            model, report = super().from_pretrained(
                pretrained_model_name_or_path, *args, output_loading_info=True, **kwargs
            )
        missing = [name for name in report["missing_keys"] if not name.endswith("masked_spec_embed")]
        if missing or report["mismatched_keys"]:
            model.config.forget_calibration()
        model.weights_are_new = False
        model.note_weights()
        return (model, report) if output_loading_info else model

    def get_correct_attn_implementation(self, requested_attention: str | None, is_init_check: bool = False) -> str:
        """As in transformers, after a check that the implementation is one for all towers.

        Raises:
            ValueError: If it is not; `attn_implementation` may then be a dict with an entry for the other tower alone.
        """
        if requested_attention not in (None, *IMPLEMENTATIONS):
            raise ValueError(
                f"attn_implementation={requested_attention!r} does not support all towers: choose one of "
                f"{', '.join(map(repr, IMPLEMENTATIONS))}, or give one for each tower, as in "
                f"attn_implementation={{'audio_config': 'sdpa', 'text_config': {requested_attention!r}}}"
            )
        return super().get_correct_attn_implementation(requested_attention, is_init_check)

    def post_init(self) -> None:
        """Initialise as in transformers, and list the layers that FSDP and device maps must not split."""
        super().post_init()
        self._no_split_modules = layer_classes(self)
        self.note_weights()

    def started_from(self, encoder: str) -> GEmoClapPreTrainedModel:
        """Record the pretrained encoder from which the audio tower was loaded, and the encoder's training data.

        Args:
            encoder: Name or path.

        Returns:
            The model.
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
        """Note the current weights as those that `config.training_data` describes; see `weights_as_noted`."""
        self._probe = weight_probe(self)

    def weights_as_noted(self) -> bool:
        """Whether the weights are unchanged since the last call of `note_weights`.

        Initialisation, loading and the trainers of this package call it.
        """
        current = weight_probe(self)
        return all(current.get(name) == values for name, values in (self._probe or {}).items())

    def check_history(self) -> None:
        """Mark the training history as unknown if the weights differ from those that `config.training_data` describes.

        The trainers of this package record a hash of the weights; without it, the weights are not checked.
        """
        recorded = getattr(self.config, "weights_sha256", None)
        if recorded and recorded != tensors_sha256(self.state_dict().values()):
            self.config.weights_sha256 = None
            self.forget_history("its weights are not those that its record of training describes")

    def forget_history(self, reason: str) -> None:
        """Record that the training history of the weights is unknown, and remove the calibration temperature.

        Args:
            reason: Why it is unknown.
        """
        self.config.training_data = [*(self.config.training_data or []), {"unknown": reason}]
        self.config.forget_calibration()

    def _add_audio_tower(self, audio_model: PreTrainedModel | None) -> None:
        """Add the audio tower, `audio_model` or a new one, and its pooling."""
        config = self.config
        self.weights_are_new = audio_model is None
        self.audio_model = mask_padding_leaks(audio_model or build_audio_tower(config.audio_config))
        self.main_input_name = self.audio_model.main_input_name
        self.audio_pooling = GEmoClapAudioPooling(config)
        if hasattr(self.audio_model, "masked_spec_embed") and not applies_spec_augment(config.audio_config):
            # Only SpecAugment uses this parameter, and distributed training fails for parameters without gradients.
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
        """Encode audio and pool the valid frames of each clip.

        Args:
            input_values: `(batch, samples)`, for towers with raw waveforms; for AST `(batch, frames, mel)`.
            input_features: `(batch, frames, mel)`, for towers with spectrograms; for Whisper
                `(batch, mel, windows * frames)`.
            audio_attention_mask: `(batch, samples or frames)`, 1 for valid input and 0 for padding at the end.
            audio_frames: `(batch, states, frames, hidden_size)`, the padded outputs of `frozen_states`, instead of the
                two inputs. `audio_attention_mask` is then the mask of these frames. Only layers that are trained run.

        Returns:
            `(batch, hidden_size)`, or `(batch, 2 * hidden_size)` for `"mean_std"`. The vector of a clip is independent
            of batch composition and padding.

        Raises:
            ValueError: If none or several of the inputs are given, or if the device does not support the dtype of the
                model.
        """
        if audio_frames is None:
            return self._encode_batch(self._pool_frames, input_values, input_features, audio_attention_mask)
        if input_values is not None or input_features is not None:
            raise ValueError("give either audio_frames or the input of the audio tower, not both")
        states = list(audio_frames.to(self.dtype).unbind(1))
        if layers := self.last_layers():
            states += run_last_layers(self.audio_model, layers, states[-1], audio_attention_mask)
        return self.audio_pooling(states, audio_attention_mask)

    def frozen_states(
        self,
        input_values: torch.Tensor | None = None,
        input_features: torch.Tensor | None = None,
        audio_attention_mask: torch.Tensor | None = None,
    ) -> list[tuple[torch.Tensor, int]]:
        """Encode audio by the frozen part of the audio tower, for `pool_audio`.

        The frozen part is the tower, or after `unfreeze_last_n_layers` its lower layers.

        Args:
            input_values: See `pool_audio`.
            input_features: See `pool_audio`.
            audio_attention_mask: See `pool_audio`.

        Returns:
            For each clip `(states, frames, hidden_size)` and the number of its valid frames, which come first. The
            states are those of all frozen layers with `use_weighted_layer_sum`, else that of the last.

        Raises:
            ValueError: As for `pool_audio`.
        """

        def encode(inputs: torch.Tensor, mask: torch.Tensor | None) -> list[tuple[torch.Tensor, int]]:
            all_layers = self.config.use_weighted_layer_sum
            return frozen_states(self.audio_model, inputs, mask, self.num_trained_layers, all_layers)

        return self._encode_batch(encode, input_values, input_features, audio_attention_mask)

    def layer_means(
        self,
        input_values: torch.Tensor | None = None,
        input_features: torch.Tensor | None = None,
        audio_attention_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Mean over the valid frames of a clip of the input of the first Transformer layer and of each layer's output.

        Args:
            input_values: See `pool_audio`.
            input_features: See `pool_audio`.
            audio_attention_mask: See `pool_audio`.

        Returns:
            `(batch, layers + 1, hidden_size)`.

        Raises:
            ValueError: As for `pool_audio`, or if the frame rate of the layers differs from that of the output (SEW).
        """

        def encode(inputs: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
            states, valid = encode_frames(self.audio_model, inputs, mask, all_layers=True)
            stacked = torch.stack(states, 1)
            valid = stacked.new_ones(stacked.shape[0], stacked.shape[2]) if valid is None else valid.to(stacked.dtype)
            return (stacked * valid[:, None, :, None]).sum(2) / valid.sum(1).clamp_min(1)[:, None, None]

        return self._encode_batch(encode, input_values, input_features, audio_attention_mask)

    def _encode_batch(self, encode: Callable, input_values, input_features, mask: torch.Tensor | None):
        """Encode a batch: at once if the tower ignores padding, else in groups of clips of equal length.

        `encode` maps inputs `(batch, ...)` and their mask to a tensor or a list with one item for each clip.
        """
        if (input_values is None) == (input_features is None):
            raise ValueError("give either input_values (raw waveforms) or input_features (spectrograms)")
        inputs = (input_features if input_values is None else input_values).to(self.dtype)
        with self._explain_unsupported_dtype():
            if mask is None or ignores_padding(self.config.audio_config):
                return encode(inputs, mask)
            lengths, order, groups = mask.sum(1), [], []
            lengths = lengths.masked_fill(lengths == 0, mask.shape[1])  # an empty clip keeps its padding
            for length in lengths.unique().tolist():
                rows = (lengths == length).nonzero()[:, 0]
                order.append(rows)
                groups.append(encode(inputs[rows, :length], None))
        indices = torch.cat(order).argsort()
        if isinstance(groups[0], torch.Tensor):
            return torch.cat(groups)[indices]
        items = [item for group in groups for item in group]
        return [items[index] for index in indices.tolist()]

    @contextmanager
    def _explain_unsupported_dtype(self) -> Iterator[None]:
        """Convert torch's error for an unsupported dtype to one that names a supported dtype."""
        try:
            yield
        except RuntimeError as error:
            if "not implemented for" not in str(error):
                raise
            raise ValueError(
                f"this {self.device.type} cannot run the model in {self.dtype} ({error}): "
                f"load it with dtype=torch.float32 or dtype=torch.bfloat16"
            ) from None

    def _pool_frames(self, inputs: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        states, frames = encode_frames(self.audio_model, inputs, mask, self.config.use_weighted_layer_sum)
        return self.audio_pooling(states, frames)


class GEmoClapAudioOnlyModel(GEmoClapPreTrainedModel):
    """Base class of the models without a text tower."""

    accepts_loss_kwargs = False

    def __init__(self, config: GEmoClapConfig, audio_model: PreTrainedModel | None = None):
        if config.custom_pipelines:  # the zero-shot pipeline requires a text tower
            config = copy.deepcopy(config)
            config.custom_pipelines = {}
        super().__init__(config)
        self._add_audio_tower(audio_model)

    @classmethod
    def from_audio_pretrained(cls, audio_name_or_path: str, **kwargs) -> GEmoClapAudioOnlyModel:
        """Create a model with a pretrained audio encoder.

        Args:
            audio_name_or_path: Checkpoint of an audio encoder.
            **kwargs: Fields of `GEmoClapConfig`. Arguments with the prefix `audio_` go, without the prefix, to
                `from_pretrained` of the encoder, but `audio_layers` is the number of first layers that are kept, and
                `audio_window_seconds` Whisper's window (give it to the extractor too). `dtype` is the precision of the
                entire model, float32 by default.

        Returns:
            The model, in eval mode as with `from_pretrained`.

        Raises:
            ValueError: If the checkpoint is not an audio encoder, lacks weights, or does not match its configuration.
        """
        dtype = pop_dtype(kwargs)
        kwargs, audio, _ = split_by_tower(kwargs)
        tower = load_audio_tower(audio_name_or_path, **audio)
        model = cls(GEmoClapConfig(audio_config=tower.config, **kwargs), audio_model=tower).to(dtype).eval()
        return model.started_from(audio_name_or_path)


def split_by_tower(options: dict) -> tuple[dict, dict, dict]:
    """Split options by their prefix into those of the model, of the audio tower and of the text tower.

    `text_pooling` is an option of the model.

    Raises:
        ValueError: If a dtype is given for a tower.
    """
    groups: tuple[dict, dict, dict] = {}, {}, {}
    for name, value in options.items():
        group = 1 if name.startswith("audio_") else 2 if name.startswith("text_") and name != "text_pooling" else 0
        name = name.removeprefix(("", "audio_", "text_")[group])
        if group and name in ("dtype", "torch_dtype"):
            raise ValueError("towers and projections have the same dtype: give dtype, not audio_dtype or text_dtype")
        groups[group][name] = value
    return groups


def pop_dtype(options: dict) -> torch.dtype:
    """Remove `dtype` or `torch_dtype` from the options and return it; float32 by default.

    Raises:
        ValueError: If it is not a dtype.
    """
    value = options.pop("torch_dtype", None)
    value = options.pop("dtype", value)
    dtype = torch.float32 if value in (None, "auto") else getattr(torch, str(value).removeprefix("torch."), None)
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"dtype={value!r} is unknown; give torch.bfloat16, torch.float16 or torch.float32")
    return dtype
