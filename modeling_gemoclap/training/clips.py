"""Clips as a training set: read once and checked, their features kept where they are cheap to keep."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, replace
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from transformers import TrainingArguments
from transformers.utils import logging

from ..configuration_gemoclap import GEmoClapConfig
from ..corpora.manifest import COLUMNS, Corpus
from ..corpora.shard_reader import ShardReader
from ..feature_extraction_gemoclap import AudioError, GEmoClapFeatureExtractor
from ..fingerprint import AUDIO_LIBRARIES, digest, fingerprint
from .arguments import DataArguments
from .augmentation import Augmentation
from .gather import refuse_differences

logger = logging.get_logger(__name__)


def _examine(row: dict, extractor: GEmoClapFeatureExtractor) -> dict:
    """Read one clip: its features (log-mel only, flat), and what is wrong with it, or ""."""
    try:
        wave = extractor.load_speech(row["path"])
    except AudioError as error:
        return {"features": np.zeros(0, np.float32), "error": str(error)}
    keep = extractor.feature_type == "log_mel"
    return {"features": extractor.features(wave).ravel() if keep else np.zeros(0, np.float32), "error": ""}


def _cache_file(corpus: Corpus, extractor: GEmoClapFeatureExtractor, cache_dir: str | None) -> Path:
    """Named by all that the features depend on, so that a change of it is seen."""
    folder = Path(cache_dir or os.path.join(datasets.config.HF_DATASETS_CACHE, "gemoclap"))
    folder.mkdir(parents=True, exist_ok=True)
    made_of = fingerprint(
        ["training.clips"],
        AUDIO_LIBRARIES,
        files=hashlib.sha256(corpus.file_states()).hexdigest(),
        settings=extractor.to_dict(),
    )
    return folder / f"features-{digest(made_of)[:32]}.arrow"


def _parts_of(cache_file: Path) -> list[Path]:
    """The files of a cache: one, or one for each process that made it."""
    return list(cache_file.parent.glob(f"{cache_file.stem}*.arrow"))


def _examine_all(corpus: Corpus, extractor, cache_file: Path, num_proc: int | None) -> datasets.Dataset:
    columns = datasets.Features(
        {"features": datasets.List(datasets.Value("float32")), "error": datasets.Value("string")}
    )
    return corpus.clips.select_columns(["path"]).map(
        _examine,
        fn_kwargs={"extractor": extractor},
        remove_columns=["path"],
        features=columns,
        cache_file_name=str(cache_file),
        new_fingerprint=cache_file.stem[-32:],
        num_proc=num_proc,
        writer_batch_size=100,
        desc="reading audio",
    )


def _read_cached(corpus: Corpus, extractor, cache_file: Path, num_proc: int | None):
    """Features and errors. A cached error is not believed: what it came from may have been mended since."""
    was_there = bool(_parts_of(cache_file))
    read = _examine_all(corpus, extractor, cache_file, num_proc)
    errors = list(read["error"])
    if not was_there or not any(errors):
        return read, errors
    pairs = zip(corpus.clips["path"], errors, strict=True)
    again = [error and _examine({"path": path}, extractor)["error"] for path, error in pairs]
    if again.count("") == errors.count(""):
        return read, again
    for part in _parts_of(cache_file):
        part.unlink()
    read = _examine_all(corpus, extractor, cache_file, num_proc)
    return read, list(read["error"])


def read_clips(
    corpus: Corpus,
    extractor: GEmoClapFeatureExtractor,
    on_bad_audio: str = "raise",
    cache_dir: str | None = None,
    num_proc: int | None = None,
) -> tuple[Corpus, list[str]]:
    """Read every clip once, before anything is trained; clips in shards are read when they are needed.

    Args:
        corpus: The clips.
        extractor: Makes the features; those of `"log_mel"` are cached, waves are read again when they are needed.
        on_bad_audio: `"raise"`, or `"skip"` to go on without clips that cannot be used.
        cache_dir: Where the features are cached.
        num_proc: Processes that share the work.

    Returns:
        The clips that can be used, with a column `features`, and what is wrong with each of the others.

    Raises:
        AudioError: If clips cannot be used and `on_bad_audio` is `"raise"`; it names them.
    """
    if corpus.shards:
        return corpus, []
    read, errors = _read_cached(corpus, extractor, _cache_file(corpus, extractor, cache_dir), num_proc)
    bad = [error for error in errors if error]
    if bad and on_bad_audio == "raise":
        raise AudioError(
            f"{corpus.cannot_be_used(bad)}take their rows out of metadata.csv, "
            f"or give --on_bad_audio skip to train on the rest"
        )
    if bad:
        logger.warning(f"{corpus.name}: went on without {len(bad)} of {len(errors)} clips:\n  " + "\n  ".join(bad))
    clips = corpus.clips.select_columns(["path", *COLUMNS])  # a manifest may have columns of any name
    clips = datasets.concatenate_datasets([clips, read.select_columns(["features"])], axis=1)
    good = [index for index, error in enumerate(errors) if not error]
    return replace(corpus, clips=clips.select(good)), bad


def read_parts(
    parts: tuple[Corpus, Corpus | None],
    extractor: GEmoClapFeatureExtractor,
    data: DataArguments,
    training: TrainingArguments,
) -> tuple[Corpus, Corpus | None, list[str]]:
    """Read training and development clips, as `read_clips`; clips of several corpora are normalised in level.

    Args:
        parts: Training clips, and development clips or None.
        extractor: Makes the features; its `do_normalize` is set where corpora are mixed.
        data: `on_bad_audio`, `feature_cache_dir` and `preprocessing_num_workers`.
        training: The main process reads first.

    Returns:
        The usable clips of both parts, and the errors of the others.

    Raises:
        ValueError: If processes have different clips, or fewer than two emotions are left.
    """
    train, dev = parts
    if train.parts and not extractor.do_normalize:
        logger.warning("corpora of different levels are mixed: each clip is brought to unit variance (do_normalize)")
        extractor.do_normalize = True
    options = (data.on_bad_audio, data.feature_cache_dir, data.preprocessing_num_workers)
    with training.main_process_first(desc="reading audio"):
        train, skipped = read_clips(train, extractor, *options)
        dev, skipped_dev = read_clips(dev, extractor, *options) if dev else (None, [])
    refuse_different_clips(train, dev)  # a clip that one process cannot read is missing there only
    if parts[0].emotions and len(train.emotions) < 2:
        raise ValueError(f"{train.name}: fewer than two emotions are left after bad clips were skipped")
    return train, dev, skipped + skipped_dev


def refuse_different_clips(train: Corpus, dev: Corpus | None) -> None:
    """Check that all processes have the same clips in the same order.

    Raises:
        ValueError: If they do not.
    """
    refuse_differences(train.sha256_in_order(), f"{train.name}: metadata.csv")
    refuse_differences(dev.sha256_in_order() if dev else "none", f"{train.name}: the development clips")


def _numbers(words: pa.ChunkedArray, labels: list[str]) -> list[int]:
    """The labels' numbers; -1 for the empty word."""
    if unknown := set(words.unique().to_pylist()) - {*labels, ""}:
        raise ValueError(f"the configuration has no label {', '.join(map(repr, sorted(unknown)))}")
    return pc.fill_null(pc.index_in(words, value_set=pa.array(labels, pa.string())), -1).to_pylist()


@dataclass(frozen=True)
class ClipOptions:
    """How training clips are drawn.

    Args:
        max_seconds: Longer clips are cut to this length at a random place; None: complete clips.
        augmentation: Changes log-mel features `(frames, num_mel_bins)` anew whenever a clip is drawn.
        seed: Seed of all random draws.
        on_bad_audio: Treatment of an unusable clip in a shard: `"raise"`, or `"skip"`.
    """

    max_seconds: float | None = None
    augmentation: Augmentation | None = None
    seed: int = 0
    on_bad_audio: str = "raise"


def audio_inputs(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The part of a batch that `get_audio_features` and `pool_audio` take."""
    names = ("input_values", "input_features", "audio_frames", "audio_attention_mask")
    return {name: batch[name] for name in names if name in batch}


class AudioCollator:
    """Pads clips into a batch without texts.

    Args:
        extractor: Makes the model inputs.
    """

    def __init__(self, extractor: GEmoClapFeatureExtractor):
        self.extractor = extractor

    def __call__(self, examples: list[dict]) -> dict[str, torch.Tensor]:
        """Make a batch of audio inputs and `emotion_labels` from dicts with `clip` and `emotion_label`."""
        batch = dict(self.extractor.collate([example["clip"] for example in examples]))
        return batch | {"emotion_labels": torch.tensor([example["emotion_label"] for example in examples])}


class ClipDataset(torch.utils.data.Dataset):
    """Clips with labels, as the collator wants them.

    What is drawn for a clip (its cut, its warp, its prompt) is a function of seed, epoch and index alone: neither
    workers, nor batches that were fetched ahead, nor an interruption change it.

    Args:
        corpus: Clips that `read_clips` returned.
        extractor: The same extractor.
        config: Its `emotions` and `genders` number the labels.
        options: How clips are drawn.
    """

    def __init__(
        self,
        corpus: Corpus,
        extractor: GEmoClapFeatureExtractor,
        config: GEmoClapConfig,
        options: ClipOptions = ClipOptions(),
    ):
        augmentation = options.augmentation
        if augmentation and extractor.feature_type != "log_mel":
            raise ValueError(
                "time_warp, mel_warp, equalizer_db, noise_prob, reverb_prob and mix_prob change log-mel features; "
                "this audio tower hears raw waves: leave them at 0"
            )
        if corpus.shards and augmentation and augmentation.mix_prob:
            raise ValueError("mix_prob would read shards out of their order: leave it at 0, or give the recordings")
        self.corpus = corpus  # the trainer records whose clips these are
        self.clips = corpus.clips
        self.reader = ShardReader(corpus.shards) if corpus.shards else None
        if self.reader is None:
            self.clips = corpus.clips.with_format("numpy", columns=["features"], output_all_columns=True)
        self.extractor = extractor
        self.max_seconds = options.max_seconds
        self.augmentation = augmentation
        self.seed = options.seed
        self.on_bad_audio = options.on_bad_audio
        self.epoch = torch.zeros((), dtype=torch.long).share_memory_()  # workers that outlive an epoch see it too
        self._skipped = torch.zeros(len(self.clips), dtype=torch.bool).share_memory_()  # all workers write into it
        self._alike: dict[tuple[int, int], list[int]] = {}
        self.emotions = config.emotions
        self.emotion_labels = _numbers(corpus.column("emotion"), config.emotions)
        self.gender_labels = _numbers(corpus.column("gender"), config.genders)

    @property
    def groups(self) -> np.ndarray | None:
        """What is read from shards at a time: the group of rows of every clip, `(clips,)`; None outside of shards."""
        if self.reader is None:
            return None
        places = self.clips.select_columns(["shard", "group"]).with_format("numpy")[:]
        return np.unique(np.stack([places["shard"], places["group"]]), axis=1, return_inverse=True)[1].ravel()

    def __len__(self) -> int:
        return len(self.emotion_labels)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch whose draws come next."""
        self.epoch.fill_(epoch)

    def __getitem__(self, index: int) -> dict:
        """A clip with its labels; beyond the last, another draw of that at `index % len`; -1: one to fill up with."""
        if index == -1:
            return self._filler()
        state = np.random.SeedSequence([self.seed, int(self.epoch), index]).generate_state(2)
        generator = torch.Generator().manual_seed(int(state[0]))
        index %= len(self)
        row = self.clips[index]
        try:
            clip = self._features(row, generator, index)
        except AudioError as error:
            if self.on_bad_audio == "raise":
                raise AudioError(f"{error}; or give --on_bad_audio skip to train on the rest") from None
            if not self._skipped[index]:
                self._skipped[index] = True
                logger.warning(f"went on without a clip: {error}")
            return self._filler()
        labels = {"emotion_label": self.emotion_labels[index], "gender_label": self.gender_labels[index]}
        return {"clip": clip, **labels, "seed": int(state[1]), "index": index}

    def skipped_places(self) -> list[int]:
        """The clips that could not be used so far, in this process and its workers."""
        return self._skipped.nonzero()[:, 0].tolist()

    def what_is_wrong(self, index: int) -> str:
        """The reason why a clip was skipped: it is read once more."""
        row = self.clips[index]
        try:
            self.extractor.load_speech(self.reader.read(row) if self.reader else row["path"])
        except AudioError as error:
            return str(error)
        return f"{self.name_of(index)}: could not be read during the training"

    def name_of(self, index: int) -> str:
        """File name of a clip."""
        return self.clips.with_format(None).select_columns(["file_name"])[index]["file_name"]

    def _features(self, row: dict, generator: torch.Generator, index: int) -> np.ndarray:
        log_mel = self.extractor.feature_type == "log_mel"
        if log_mel and "features" in row:
            clip = np.asarray(row["features"], dtype=np.float32).reshape(-1, self.extractor.num_mel_bins)
        else:
            load = self.extractor.load_speech if self.reader else self.extractor.load  # the others were examined
            clip = load(self.reader.read(row) if self.reader else row["path"])
        if not log_mel:
            return self.extractor.features(self._cut(clip, self.extractor.sampling_rate, generator))
        clip = clip if "features" in row else self.extractor.features(clip)
        if self.augmentation:
            clip = self.augmentation(clip, generator, lambda: self._another(index, generator))
        return self._cut(clip, 1 / self.extractor.hop_seconds, generator)

    def _another(self, index: int, generator: torch.Generator) -> np.ndarray:
        """The features of a clip of the same emotion and gender."""
        labels = (self.emotion_labels[index], self.gender_labels[index])
        alike = self._alike.get(labels)
        if alike is None:
            every = zip(self.emotion_labels, self.gender_labels, strict=True)
            alike = self._alike[labels] = [number for number, pair in enumerate(every) if pair == labels]
        row = self.clips[alike[int(torch.randint(len(alike), (), generator=generator))]]
        return np.asarray(row["features"], dtype=np.float32).reshape(-1, self.extractor.num_mel_bins)

    def _filler(self) -> dict:
        """Noise without labels: it takes no part."""
        noise = 0.01 * np.random.default_rng(0).standard_normal(self.extractor.sampling_rate)
        clip = self.extractor.features(noise.astype(np.float32))
        return {"clip": clip, "emotion_label": -1, "gender_label": -1, "index": -1}

    def _cut(self, clip: np.ndarray, rate: float, generator: torch.Generator) -> np.ndarray:
        if self.max_seconds is None or len(clip) <= self.max_seconds * rate:
            return clip
        length = int(self.max_seconds * rate)
        start = int(torch.randint(len(clip) - length + 1, (), generator=generator))
        return clip[start : start + length]
