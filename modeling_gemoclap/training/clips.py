"""Training clips: reading and checking, the feature cache, the dataset and the collator."""

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
from .augmentation import Augmentation, log_mel_scale, whisper_log_mel
from .frozen import StoredFrames
from .gather import refuse_differences

logger = logging.get_logger(__name__)


def _examine(row: dict, extractor: GEmoClapFeatureExtractor) -> dict:
    """Read a clip. Return its features (flat; empty unless log-mel), length and error ("" if it is usable)."""
    nothing = np.zeros(0, np.float32)
    try:
        wave = extractor.load_speech(row["path"])
    except AudioError as error:
        return {"features": nothing, "length": 0, "error": str(error)}
    if extractor.feature_type != "log_mel":
        return {"features": nothing, "length": len(wave), "error": ""}
    features = extractor.features(wave)
    return {"features": features.ravel(), "length": len(features), "error": ""}


def cache_folder(cache_dir: str | None) -> Path:
    """Folder of cached features: `cache_dir`, or one in the cache of `datasets`. It is created."""
    folder = Path(cache_dir or os.path.join(datasets.config.HF_DATASETS_CACHE, "gemoclap"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _cache_file(corpus: Corpus, extractor: GEmoClapFeatureExtractor, cache_dir: str | None) -> Path:
    """Path of the cached features. Its name is a hash of everything that they depend on."""
    identity = fingerprint(
        ["training.clips"],
        AUDIO_LIBRARIES,
        files=hashlib.sha256(corpus.file_states()).hexdigest(),
        settings=extractor.to_dict(),
    )
    return cache_folder(cache_dir) / f"features-{digest(identity)[:32]}.arrow"


def _cache_parts(cache_file: Path) -> list[Path]:
    """The files of a cache: one for each process that wrote it."""
    return list(cache_file.parent.glob(f"{cache_file.stem}*.arrow"))


def _examine_all(corpus: Corpus, extractor, cache_file: Path, num_proc: int | None) -> datasets.Dataset:
    """Examine all clips; `datasets` reads an existing cache instead."""
    value = datasets.Value
    columns = datasets.Features(
        {"features": datasets.List(value("float32")), "length": value("int64"), "error": value("string")}
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
    """Features and errors. Clips with a cached error are read again, since the file may have been repaired."""
    was_cached = bool(_cache_parts(cache_file))
    examined = _examine_all(corpus, extractor, cache_file, num_proc)
    errors = list(examined["error"])
    if not was_cached or not any(errors):
        return examined, errors
    pairs = zip(corpus.clips["path"], errors, strict=True)
    new_errors = [error and _examine({"path": path}, extractor)["error"] for path, error in pairs]
    if new_errors.count("") == errors.count(""):
        return examined, new_errors
    for part in _cache_parts(cache_file):
        part.unlink()
    examined = _examine_all(corpus, extractor, cache_file, num_proc)
    return examined, list(examined["error"])


def read_clips(
    corpus: Corpus,
    extractor: GEmoClapFeatureExtractor,
    on_bad_audio: str = "raise",
    cache_dir: str | None = None,
    num_proc: int | None = None,
) -> tuple[Corpus, list[str]]:
    """Read and check every clip once before training. Clips in shards are read during training instead.

    Args:
        corpus: The clips.
        extractor: The feature extractor. `"log_mel"` features are cached; waves are read again during training.
        on_bad_audio: Treatment of unusable clips: `"raise"`, or `"skip"`.
        cache_dir: Folder for cached features; None: the cache of `datasets`.
        num_proc: Number of processes that read audio.

    Returns:
        The usable clips, with the columns `features` and `length` (in samples, or frames of log-mel features), and
        the errors of the other clips.

    Raises:
        AudioError: If a clip is unusable and `on_bad_audio` is `"raise"`. The message lists these clips.
    """
    if corpus.shards:
        return corpus, []
    examined, errors = _read_cached(corpus, extractor, _cache_file(corpus, extractor, cache_dir), num_proc)
    bad = [error for error in errors if error]
    if bad and on_bad_audio == "raise":
        raise AudioError(
            f"{corpus.cannot_be_used(bad)}remove their rows from metadata.csv, "
            f"or give --on_bad_audio skip to train on the rest"
        )
    if bad:
        logger.warning(f"{corpus.name}: skipped {len(bad)} of {len(errors)} clips:\n  " + "\n  ".join(bad))
    clips = corpus.clips.select_columns(["path", *COLUMNS])  # other columns of a manifest may have any name
    clips = datasets.concatenate_datasets([clips, examined.select_columns(["features", "length"])], axis=1)
    good = [index for index, error in enumerate(errors) if not error]
    return replace(corpus, clips=clips.select(good)), bad


def read_parts(
    parts: tuple[Corpus, Corpus | None],
    extractor: GEmoClapFeatureExtractor,
    data: DataArguments,
    training: TrainingArguments,
) -> tuple[Corpus, Corpus | None, list[str]]:
    """Read training and development clips by `read_clips`. Clips of several corpora are normalised in level.

    Args:
        parts: Training clips, and development clips or None.
        extractor: The feature extractor. If several corpora are mixed, its `do_normalize` is set, unless it has a
            `level_db`.
        data: Options `on_bad_audio`, `feature_cache_dir` and `preprocessing_num_workers`.
        training: The training arguments; the main process reads first.

    Returns:
        The usable training clips, the usable development clips or None, and the errors of the other clips.

    Raises:
        ValueError: If clips differ between processes, or fewer than two emotions are left.
    """
    train, dev = parts
    if train.parts and not extractor.do_normalize and extractor.level_db is None:
        logger.warning("several corpora may differ in level: each clip is normalised to unit variance (do_normalize)")
        extractor.do_normalize = True
    options = (data.on_bad_audio, data.feature_cache_dir, data.preprocessing_num_workers)
    with training.main_process_first(desc="reading audio"):
        train, skipped = read_clips(train, extractor, *options)
        dev, skipped_dev = read_clips(dev, extractor, *options) if dev else (None, [])
    refuse_different_clips(train, dev)  # a clip may be unreadable on one process only
    if parts[0].emotions and len(train.emotions) < 2:
        raise ValueError(f"{train.name}: fewer than two emotions are left after clips were skipped; give more clips")
    return train, dev, skipped + skipped_dev


def refuse_different_clips(train: Corpus, dev: Corpus | None) -> None:
    """Check that all processes have the same clips in the same order.

    Raises:
        ValueError: If clips differ.
    """
    refuse_differences(train.sha256_in_order(), f"{train.name}: metadata.csv")
    refuse_differences(dev.sha256_in_order() if dev else "none", f"{train.name}: the development clips")


def _label_indices(words: pa.ChunkedArray, labels: list[str]) -> list[int]:
    """Index of each word in `labels`; -1 for the empty word."""
    if unknown := set(words.unique().to_pylist()) - {*labels, ""}:
        raise ValueError(f"the configuration has no label {', '.join(map(repr, sorted(unknown)))}")
    return pc.fill_null(pc.index_in(words, value_set=pa.array(labels, pa.string())), -1).to_pylist()


@dataclass(frozen=True)
class ClipOptions:
    """Cutting and augmentation of training clips.

    Args:
        max_seconds: Maximum length in seconds. Longer clips are cut at a random position; None: complete clips.
        augmentation: Random changes of log-mel features `(frames, num_mel_bins)`; see `log_mel_scale`.
        seed: Seed of all random numbers.
        on_bad_audio: Treatment of an unusable clip in a shard: `"raise"`, or `"skip"`.
    """

    max_seconds: float | None = None
    augmentation: Augmentation | None = None
    seed: int = 0
    on_bad_audio: str = "raise"


def audio_inputs(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Select the arguments of `get_audio_features` and `pool_audio` from a batch."""
    names = ("input_values", "input_features", "audio_frames", "audio_attention_mask")
    return {name: batch[name] for name in names if name in batch}


class ClipDataset(torch.utils.data.Dataset):
    """Clips with labels, for a collator.

    Random numbers of a clip (cut, augmentation, prompt) depend only on seed, epoch and index, not on workers,
    prefetching or interruptions.

    Args:
        corpus: Clips that `read_clips` returned.
        extractor: The feature extractor that `read_clips` used.
        config: Configuration whose `emotions` and `genders` define the label indices.
        options: Cutting and augmentation.

    Raises:
        ValueError: If augmentation does not fit the features or shards, or if a label is not in the configuration.

    Attributes:
        frames: Frames that replace the features of the clips, set by `attach_frames`; None: there are none.
    """

    def __init__(
        self,
        corpus: Corpus,
        extractor: GEmoClapFeatureExtractor,
        config: GEmoClapConfig,
        options: ClipOptions = ClipOptions(),
    ):
        augmentation = options.augmentation
        if augmentation and log_mel_scale(extractor) is None:
            raise ValueError(
                "time_warp, mel_warp, equalizer_db, noise_prob, reverb_prob and mix_prob change the log-mel features "
                "of the compact encoder and of Whisper; this audio tower takes others or raw waves: leave them at 0"
            )
        if corpus.shards and augmentation and augmentation.mix_prob:
            raise ValueError("mix_prob would read shards out of order: leave it at 0, or train on the recordings")
        self.corpus = corpus  # the trainer records its speakers
        self.clips = corpus.clips
        self.reader = ShardReader(corpus.shards) if corpus.shards else None
        if self.reader is None:  # Arrow's rows are read ten times as fast as those of Python or NumPy
            names = [name for name in ("path", "features") if name in self.clips.column_names]
            self._rows = self.clips.select_columns(names).with_format("arrow")
        self.extractor = extractor
        self.max_seconds = options.max_seconds
        self.augmentation = augmentation
        self.seed = options.seed
        self.frames: StoredFrames | None = None
        self.on_bad_audio = options.on_bad_audio
        self.epoch = torch.zeros((), dtype=torch.long).share_memory_()  # shared with persistent workers
        self._skipped = torch.zeros(len(self.clips), dtype=torch.bool).share_memory_()  # written by all workers
        self._clips_with_labels: dict[tuple[int, int], list[int]] = {}
        self.emotions = config.emotions
        self.emotion_labels = _label_indices(corpus.column("emotion"), config.emotions)
        self.gender_labels = _label_indices(corpus.column("gender"), config.genders)

    @property
    def groups(self) -> np.ndarray | None:
        """Row group of every clip, `(clips,)`, the unit in which shards are read; None without shards."""
        if self.reader is None:
            return None
        columns = self.clips.select_columns(["shard", "group"]).with_format("numpy")[:]
        return np.unique(np.stack([columns["shard"], columns["group"]]), axis=1, return_inverse=True)[1].ravel()

    @property
    def lengths(self) -> np.ndarray | None:
        """Length of every clip before augmentation, `(clips,)`, in samples or frames; None if it is unknown."""
        if self.frames:
            return self.frames.lengths
        if "length" not in self.clips.column_names:
            return None
        lengths = self.clips.with_format("numpy").select_columns(["length"])[:]["length"]
        log_mel, extractor = self.extractor.feature_type == "log_mel", self.extractor
        rate = 1 / extractor.hop_seconds if log_mel else extractor.sampling_rate
        return lengths if self.max_seconds is None else lengths.clip(max=int(self.max_seconds * rate))

    def __len__(self) -> int:
        return len(self.emotion_labels)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch that the random numbers depend on."""
        self.epoch.fill_(epoch)

    def __getitem__(self, index: int) -> dict:
        """A clip with its labels. Index `i + n * len` is the n-th repetition of clip `i`; -1 is a padding clip."""
        if index == -1:
            return self._padding_clip()
        state = np.random.SeedSequence([self.seed, int(self.epoch), index]).generate_state(2)
        generator = torch.Generator().manual_seed(int(state[0]))
        index %= len(self)
        try:
            clip = self.frames.draw(index, generator) if self.frames else self.clip_features(index, generator)
        except AudioError as error:
            if self.on_bad_audio == "raise":
                raise AudioError(f"{error}; or give --on_bad_audio skip to train on the rest") from None
            if not self._skipped[index]:
                self._skipped[index] = True
                logger.warning(f"skipped a clip: {error}")
            return self._padding_clip()
        labels = {"emotion_label": self.emotion_labels[index], "gender_label": self.gender_labels[index]}
        return {"clip": clip, **labels, "seed": int(state[1]), "index": index}

    def skipped_indices(self) -> list[int]:
        """Indices of the clips that this process and its workers have skipped so far."""
        return self._skipped.nonzero()[:, 0].tolist()

    def clip_error(self, index: int) -> str:
        """Read a skipped clip again and return its error."""
        row = self._row(index)
        try:
            self.extractor.load_speech(self.reader.read(row) if self.reader else row["path"])
        except AudioError as error:
            return str(error)
        return f"{self.name_of(index)}: could not be read during training"

    def name_of(self, index: int) -> str:
        """File name of a clip."""
        return self.clips.with_format(None).select_columns(["file_name"])[index]["file_name"]

    def clip_features(self, index: int, generator: torch.Generator | None) -> np.ndarray:
        """Features of a clip, cut and augmented by the random numbers of `generator`; None: the unchanged clip.

        Args:
            index: Index of the clip.
            generator: Source of all random numbers.

        Returns:
            A clip for `collate_audio`: `(time,)`, or log-mel features `(frames, num_mel_bins)`.

        Raises:
            AudioError: If a clip in a shard cannot be used.
        """
        row = self._row(index)
        log_mel = self.extractor.feature_type == "log_mel"
        if log_mel and "features" in row:
            clip = np.asarray(row["features"], dtype=np.float32).reshape(-1, self.extractor.num_mel_bins)
        else:
            clip = self._load(row)
        if not log_mel:
            clip = self.extractor.features(self._cut(clip, self.extractor.sampling_rate, generator))
            augments = self.augmentation and generator is not None
            return self._augmented(whisper_log_mel(self.extractor, clip), index, generator) if augments else clip
        clip = clip if "features" in row else self.extractor.features(clip)
        return self._cut(self._augmented(clip, index, generator), 1 / self.extractor.hop_seconds, generator)

    def _row(self, index: int) -> dict:
        if self.reader:
            return self.clips[index]
        row = self._rows[index]
        features = {"features": row["features"][0].values.to_numpy()} if "features" in row.column_names else {}
        return {"path": row["path"][0].as_py(), **features}

    def _load(self, row: dict) -> np.ndarray:
        load = self.extractor.load_speech if self.reader else self.extractor.load  # other clips have been checked
        return load(self.reader.read(row) if self.reader else row["path"])

    def _augmented(self, clip: np.ndarray, index: int, generator: torch.Generator | None) -> np.ndarray:
        if not self.augmentation or generator is None:
            return clip
        return self.augmentation(clip, generator, lambda: self._mixing_partner(index, generator))

    def _mixing_partner(self, index: int, generator: torch.Generator) -> np.ndarray:
        """Features of a random clip of the same emotion and gender."""
        labels = (self.emotion_labels[index], self.gender_labels[index])
        partners = self._clips_with_labels.get(labels)
        if partners is None:
            pairs = zip(self.emotion_labels, self.gender_labels, strict=True)
            partners = self._clips_with_labels[labels] = [i for i, pair in enumerate(pairs) if pair == labels]
        partner = self.clip_features(partners[int(torch.randint(len(partners), (), generator=generator))], None)
        return partner if self.extractor.feature_type == "log_mel" else whisper_log_mel(self.extractor, partner)

    def _padding_clip(self) -> dict:
        """One second of noise, or frames of zeros, without labels, which no loss term uses."""
        # Without a seed, a collator would draw global random numbers, at another moment in a resumed run.
        padding = {"emotion_label": -1, "gender_label": -1, "seed": 0, "index": -1}
        if self.frames:
            return {"clip": self.frames.padding(), **padding}
        noise = 0.01 * np.random.default_rng(0).standard_normal(self.extractor.sampling_rate)
        return {"clip": self.extractor.features(noise.astype(np.float32)), **padding}

    def _cut(self, clip: np.ndarray, rate: float, generator: torch.Generator | None) -> np.ndarray:
        if self.max_seconds is None or generator is None or len(clip) <= self.max_seconds * rate:
            return clip
        length = int(self.max_seconds * rate)
        start = int(torch.randint(len(clip) - length + 1, (), generator=generator))
        return clip[start : start + length]
