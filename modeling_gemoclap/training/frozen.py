"""What a frozen audio tower gives, computed once."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import datasets
import numpy as np
import torch

from ..base_gemoclap import GEmoClapPreTrainedModel
from ..corpora.manifest import Corpus
from ..feature_extraction_gemoclap import GEmoClapFeatureExtractor
from .clips import ClipDataset

CLIPS_AT_A_TIME = 16


class FrameDataset(torch.utils.data.Dataset):
    """Clips as the frames that a frozen audio tower gives for them.

    Args:
        frames: Columns `frames`, flat, and `label`, in their order.
        hidden_size: Width of a frame.
    """

    groups = None

    def __init__(self, frames: datasets.Dataset, hidden_size: int):
        self.emotion_labels = frames["label"][:]
        self.frames = frames.with_format("numpy")
        self.hidden_size = hidden_size

    def __len__(self) -> int:
        return len(self.emotion_labels)

    def __getitem__(self, index: int) -> dict:
        """`clip`, `(frames, hidden_size)`, and its `emotion_label`; -1: a clip that takes no part."""
        if index == -1:
            return {"clip": np.zeros((1, self.hidden_size), np.float32), "emotion_label": -1}
        index %= len(self)
        frames = np.asarray(self.frames[index]["frames"], np.float32).reshape(-1, self.hidden_size)
        return {"clip": frames, "emotion_label": self.emotion_labels[index]}


class FrameCollator:
    """Pads frames."""

    def __call__(self, examples: list[dict]) -> dict[str, torch.Tensor]:
        """Make a batch of `audio_frames`, their mask and `emotion_labels` from items of a `FrameDataset`."""
        frames = [torch.from_numpy(example["clip"]) for example in examples]
        mask = [torch.ones(len(clip), dtype=torch.long) for clip in frames]
        return {
            "audio_frames": torch.nn.utils.rnn.pad_sequence(frames, batch_first=True),
            "audio_attention_mask": torch.nn.utils.rnn.pad_sequence(mask, batch_first=True),
            "emotion_labels": torch.tensor([example["emotion_label"] for example in examples]),
        }


def frozen_frames(
    model: GEmoClapPreTrainedModel,
    corpus: Corpus,
    clips: ClipDataset,
    extractor: GEmoClapFeatureExtractor,
    cache_dir: str | None = None,
) -> FrameDataset:
    """Run a frozen audio tower over every clip, without dropout, and keep what it gives in a file.

    Args:
        model: The model, of whose audio tower nothing is trained.
        corpus: The clips.
        clips: The same, whole: neither cut nor changed.
        extractor: Their extractor.
        cache_dir: Where the file is kept; None: in the cache of `datasets`.

    Returns:
        The frames with the clips' labels.
    """
    folder = Path(cache_dir or os.path.join(datasets.config.HF_DATASETS_CACHE, "gemoclap"))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"frames-{_made_of(model, corpus, extractor)}.arrow"
    was_training = model.training
    model.eval()

    @torch.no_grad()
    def run(rows: dict) -> dict:
        items = [clips[index] for index in rows["index"]]
        batch = extractor.collate([item["clip"] for item in items]).to(model.device)
        frames = [frames.float().cpu().numpy().ravel() for frames in model.frames_of(**batch)]
        return {"frames": frames, "label": [item["emotion_label"] for item in items]}

    columns = {"frames": datasets.List(datasets.Value("float32")), "label": datasets.Value("int64")}
    frames = datasets.Dataset.from_dict({"index": range(len(clips))}).map(
        run,
        batched=True,
        batch_size=CLIPS_AT_A_TIME,
        remove_columns=["index"],
        features=datasets.Features(columns),
        cache_file_name=str(path),
        new_fingerprint=path.stem[-32:],
        desc="encoding audio",
    )
    model.train(was_training)
    return FrameDataset(frames, model.config.audio_config.hidden_size)


def _made_of(model: GEmoClapPreTrainedModel, corpus: Corpus, extractor: GEmoClapFeatureExtractor) -> str:
    found = hashlib.sha256(extractor.to_json_string().encode() + model.config.audio_config.to_json_string().encode())
    found.update(corpus.sha256_in_order().encode() + (b"" if corpus.shards else corpus.file_states()))
    for name, value in sorted(model.audio_model.state_dict().items()):
        found.update(name.encode() + value.detach().float().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:32]
