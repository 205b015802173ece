"""Output frames of a frozen audio tower, computed once and stored."""

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

ENCODING_BATCH_SIZE = 16


class FrameDataset(torch.utils.data.Dataset):
    """Clips as output frames of a frozen audio tower.

    Args:
        frames: Dataset with a column `frames`, flat.
        emotion_labels: Emotions of the clips, in the same order.
        hidden_size: Size of a frame.
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
        """`clip`, `(frames, hidden_size)`, with `emotion_label` and `index`; index -1 is a padding clip."""
        if index == -1:
            return {"clip": np.zeros((1, self.hidden_size), np.float32), "emotion_label": -1, "index": -1}
        index %= len(self)
        frames = np.asarray(self.frames[index]["frames"], np.float32).reshape(-1, self.hidden_size)
        return {"clip": frames, "emotion_label": self.emotion_labels[index], "index": index}


def collate_frames(examples: list[dict]) -> dict[str, torch.Tensor]:
    """Collate items of a `FrameDataset` into `audio_frames`, `audio_attention_mask` and `emotion_labels`."""
    frames = [torch.from_numpy(example["clip"]) for example in examples]
    mask = [torch.ones(len(clip), dtype=torch.long) for clip in frames]
    return {
        "audio_frames": torch.nn.utils.rnn.pad_sequence(frames, batch_first=True),
        "audio_attention_mask": torch.nn.utils.rnn.pad_sequence(mask, batch_first=True),
        "emotion_labels": torch.tensor([example["emotion_label"] for example in examples]),
    }


def frames_folder(arguments: GEmoClapTrainingArguments) -> Path:
    """Folder of the frames of a run. They are specific to its encoder and are removed when it ends."""
    return Path(arguments.output_dir, "frozen_frames")


def remove_frames(arguments: GEmoClapTrainingArguments) -> None:
    """Remove the frames of a finished run."""
    shutil.rmtree(frames_folder(arguments), ignore_errors=True)


def frozen_frames(
    model: GEmoClapPreTrainedModel,
    clips: ClipDataset,
    folder: Path,
) -> FrameDataset:
    """Encode every clip by a frozen audio tower, without dropout, and store the frames in a file.

    Args:
        model: The model with the frozen audio tower.
        clips: Complete clips, neither cut nor augmented.
        folder: Folder of the file, which a resumed run reads.

    Returns:
        The frames with the labels of the clips.
    """
    corpus, extractor = clips.corpus, clips.extractor
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{_frames_hash(model, corpus, extractor)}.arrow"
    was_training = model.training
    model.eval()

    @torch.no_grad()
    def encode(rows: dict) -> dict:
        batch = extractor.collate([clips[index]["clip"] for index in rows["index"]]).to(model.device)
        return {"frames": [frames.float().cpu().numpy().ravel() for frames in model.frames_of(**batch)]}

    frames = datasets.Dataset.from_dict({"index": range(len(clips))}).map(
        encode,
        batched=True,
        batch_size=ENCODING_BATCH_SIZE,
        remove_columns=["index"],
        features=datasets.Features({"frames": datasets.List(datasets.Value("float32"))}),
        cache_file_name=str(path),
        new_fingerprint=path.stem,
        writer_batch_size=100,
        desc="encoding audio",
    )
    model.train(was_training)
    return FrameDataset(frames, clips.emotion_labels, model.config.audio_config.hidden_size, corpus)


def _frames_hash(model: GEmoClapPreTrainedModel, corpus: Corpus, extractor: GEmoClapFeatureExtractor) -> str:
    """Hash of everything that the frames depend on."""
    weights = hashlib.sha256()
    for name, value in sorted(model.audio_model.state_dict().items()):
        weights.update(name.encode() + value.detach().float().cpu().contiguous().numpy().tobytes())
    identity = fingerprint(
        ["training.frozen"],
        (*AUDIO_LIBRARIES, "torch"),
        files=hashlib.sha256(corpus.file_states()).hexdigest(),
        settings=[extractor.to_dict(), model.config.audio_config.to_dict()],
        weights=weights.hexdigest(),
    )
    return digest(identity)[:32]
