"""What a frozen audio tower gives, computed once."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import datasets
import numpy as np
import torch

from ..base_gemoclap import GEmoClapPreTrainedModel
from ..corpora.manifest import Corpus
from ..feature_extraction_gemoclap import GEmoClapFeatureExtractor
from ..fingerprint import AUDIO_LIBRARIES, digest, fingerprint
from .arguments import GEmoClapTrainingArguments
from .clips import ClipDataset

CLIPS_AT_A_TIME = 16


class FrameDataset(torch.utils.data.Dataset):
    """Clips as the frames that a frozen audio tower gives for them.

    Args:
        frames: A column `frames`, flat.
        emotion_labels: The clips' emotions, in the same order.
        hidden_size: Width of a frame.
        corpus: The clips.
    """

    groups = None

    def __init__(self, frames: datasets.Dataset, emotion_labels: list[int], hidden_size: int, corpus: Corpus):
        self.corpus = corpus
        self.file_names = corpus.column("file_name").to_pylist()
        self.frames = frames.with_format("numpy")
        self.emotion_labels = emotion_labels
        self.hidden_size = hidden_size

    def name_of(self, index: int) -> str:
        """File name of a clip."""
        return self.file_names[index]

    def __len__(self) -> int:
        return len(self.emotion_labels)

    def __getitem__(self, index: int) -> dict:
        """`clip`, `(frames, hidden_size)`, and its `emotion_label`; -1: a clip that takes no part."""
        if index == -1:
            return {"clip": np.zeros((1, self.hidden_size), np.float32), "emotion_label": -1, "index": -1}
        index %= len(self)
        frames = np.asarray(self.frames[index]["frames"], np.float32).reshape(-1, self.hidden_size)
        return {"clip": frames, "emotion_label": self.emotion_labels[index], "index": index}


def collate_frames(examples: list[dict]) -> dict[str, torch.Tensor]:
    """Pad items of a `FrameDataset` into a batch of `audio_frames`, their mask and `emotion_labels`."""
    frames = [torch.from_numpy(example["clip"]) for example in examples]
    mask = [torch.ones(len(clip), dtype=torch.long) for clip in frames]
    return {
        "audio_frames": torch.nn.utils.rnn.pad_sequence(frames, batch_first=True),
        "audio_attention_mask": torch.nn.utils.rnn.pad_sequence(mask, batch_first=True),
        "emotion_labels": torch.tensor([example["emotion_label"] for example in examples]),
    }


def frames_folder(arguments: GEmoClapTrainingArguments) -> Path:
    """Where a run keeps the frames while it lasts: of another encoder they would be others."""
    return Path(arguments.output_dir, "frozen_frames")


def remove_frames(arguments: GEmoClapTrainingArguments) -> None:
    """Remove the frames of a run that has ended."""
    shutil.rmtree(frames_folder(arguments), ignore_errors=True)


def frozen_frames(
    model: GEmoClapPreTrainedModel,
    clips: ClipDataset,
    folder: Path,
) -> FrameDataset:
    """Run a frozen audio tower over every clip, without dropout, and keep what it gives in a file.

    Args:
        model: The model, whose audio tower is frozen.
        clips: Complete clips, neither cut nor augmented.
        folder: Where the file is stored; a resumed run reads it.

    Returns:
        The frames with the clips' labels.
    """
    corpus, extractor = clips.corpus, clips.extractor
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{_made_of(model, corpus, extractor)}.arrow"
    was_training = model.training
    model.eval()

    @torch.no_grad()
    def run(rows: dict) -> dict:
        batch = extractor.collate([clips[index]["clip"] for index in rows["index"]]).to(model.device)
        return {"frames": [frames.float().cpu().numpy().ravel() for frames in model.frames_of(**batch)]}

    frames = datasets.Dataset.from_dict({"index": range(len(clips))}).map(
        run,
        batched=True,
        batch_size=CLIPS_AT_A_TIME,
        remove_columns=["index"],
        features=datasets.Features({"frames": datasets.List(datasets.Value("float32"))}),
        cache_file_name=str(path),
        new_fingerprint=path.stem,
        writer_batch_size=100,
        desc="encoding audio",
    )
    model.train(was_training)
    return FrameDataset(frames, clips.emotion_labels, model.config.audio_config.hidden_size, corpus)


def _made_of(model: GEmoClapPreTrainedModel, corpus: Corpus, extractor: GEmoClapFeatureExtractor) -> str:
    weights = hashlib.sha256()
    for name, value in sorted(model.audio_model.state_dict().items()):
        weights.update(name.encode() + value.detach().float().cpu().contiguous().numpy().tobytes())
    made_of = fingerprint(
        ["training.frozen"],
        (*AUDIO_LIBRARIES, "torch"),
        files=hashlib.sha256(corpus.file_states()).hexdigest(),
        settings=[extractor.to_dict(), model.config.audio_config.to_dict()],
        weights=weights.hexdigest(),
    )
    return digest(made_of)[:32]
