"""The pooled audio of clips, computed once for all folds whose checkpoints share their audio encoder."""

from __future__ import annotations

import hashlib

import torch

from ..base_gemoclap import GEmoClapPreTrainedModel
from ..safety_gemoclap import tensors_sha256


class PooledClips:
    """Remembers the output of `pool_audio` for each clip.

    The folds and seeds of a run with a frozen encoder differ in what follows the pooling only. Since the vector of a
    clip is independent of the batch, it is computed once. Only the encoder that was seen last is remembered, so folds
    that train their encoder need no more memory.
    """

    def __init__(self):
        self._encoder: str | None = None
        self._vectors: dict[bytes, torch.Tensor] = {}

    def attach(self, model: GEmoClapPreTrainedModel) -> None:
        """Let a model in eval mode take the vectors of known clips from here.

        Args:
            model: The model. Its encoder and pooling must not be changed afterwards.
        """
        encoder = _encoder_of(model)
        if encoder != self._encoder:
            self._encoder, self._vectors = encoder, {}
        pool_audio = model.pool_audio

        def pool_known_audio(
            input_values=None, input_features=None, audio_attention_mask=None, audio_frames=None
        ) -> torch.Tensor:
            inputs = input_features if input_values is None else input_values
            if audio_frames is not None or inputs is None or audio_attention_mask is None:
                return pool_audio(input_values, input_features, audio_attention_mask, audio_frames)
            keys = _keys(inputs, audio_attention_mask)
            new = [row for row, key in enumerate(keys) if key not in self._vectors]
            if new:
                name = "input_features" if input_values is None else "input_values"
                vectors = pool_audio(**{name: inputs[new]}, audio_attention_mask=audio_attention_mask[new])
                self._vectors.update(zip((keys[row] for row in new), vectors.detach().cpu(), strict=True))
            return torch.stack([self._vectors[key] for key in keys]).to(model.device)

        model.pool_audio = pool_known_audio


def _encoder_of(model: GEmoClapPreTrainedModel) -> str:
    """Hash of all that `pool_audio` depends on."""
    config = model.config
    settings = [config.audio_config.to_json_string(), config.pooling, config.use_weighted_layer_sum]
    weights = [*model.audio_model.state_dict().values(), *model.audio_pooling.state_dict().values()]
    return hashlib.sha256(repr([settings, str(model.dtype), tensors_sha256(weights)]).encode()).hexdigest()


def _keys(inputs: torch.Tensor, mask: torch.Tensor) -> list[bytes]:
    """Hash of the valid input of each clip, `(batch,)`."""
    time = -1 if inputs.shape[-1] == mask.shape[1] else 1
    rows = zip(inputs.cpu(), mask.cpu().bool(), strict=True)
    valid = (clip[..., row] if time == -1 else clip[row] for clip, row in rows)
    return [hashlib.sha256(values.float().contiguous().numpy().tobytes()).digest() for values in valid]
