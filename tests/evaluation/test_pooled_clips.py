"""Pooled audio that folds with the same encoder share."""

import pytest
import torch
from conftest import batch_of

from modeling_gemoclap.evaluation.pooled_clips import PooledClips


def count_clips(model):
    """Count the clips that the encoder of a model sees."""
    seen = []
    pool_audio = model.pool_audio

    def counted(input_values=None, input_features=None, audio_attention_mask=None, audio_frames=None):
        seen.append(len(audio_attention_mask))
        return pool_audio(input_values, input_features, audio_attention_mask, audio_frames)

    model.pool_audio = counted
    return seen


@pytest.mark.parametrize("family", ["compact", "wav2vec2-base", "whisper"])
def test_a_clip_is_encoded_once_and_its_embedding_does_not_change(make_model, family):
    model, other = make_model(family), make_model(family)
    batch = batch_for(model, family)
    expected = model.get_audio_features(**batch)
    torch.nn.init.normal_(other.audio_projection.linear2.weight)  # another fold: the same encoder
    expected_other = other.get_audio_features(**batch)
    pooled = PooledClips()
    for current, wanted, encoded in ((model, expected, [3]), (other, expected_other, [])):
        seen = count_clips(current)
        pooled.attach(current)
        assert torch.allclose(current.get_audio_features(**batch), wanted, atol=1e-5)
        part = {name: value[1:2] for name, value in batch.items()}
        assert torch.allclose(current.get_audio_features(**part), wanted[1:2], atol=1e-5)
        assert seen == encoded
    assert not torch.allclose(expected, expected_other, atol=1e-2)


def test_another_encoder_does_not_use_the_vectors(make_model):
    model, other = make_model(), make_model()
    batch = batch_for(model, "compact")
    with torch.no_grad():
        next(other.audio_model.parameters()).add_(0.5)
    expected = other.get_audio_features(**batch)
    pooled = PooledClips()
    pooled.attach(model)
    model.get_audio_features(**batch)
    pooled.attach(other)
    assert torch.allclose(other.get_audio_features(**batch), expected, atol=1e-6)


def batch_for(model, family):
    """Audio inputs of three clips."""
    if family != "whisper":
        return batch_of(model, [8000, 4000, 6000])[0]
    generator = torch.Generator().manual_seed(0)
    frames = 2 * model.config.audio_config.max_source_positions
    features = torch.randn(3, model.config.audio_config.num_mel_bins, frames, generator=generator)
    mask = (torch.arange(frames) < torch.tensor([[frames], [frames // 2], [frames // 3]])).long()
    return {"input_features": features, "audio_attention_mask": mask}
