"""From recordings of any kind to the input of an audio tower."""

from __future__ import annotations

import json
import numbers
from functools import lru_cache

import numpy as np
from transformers import AutoFeatureExtractor
from transformers.audio_utils import mel_filter_bank, spectrogram, window_function
from transformers.feature_extraction_sequence_utils import SequenceFeatureExtractor
from transformers.feature_extraction_utils import BatchFeature
from transformers.utils import logging

from .audio_files_gemoclap import MAX_SAMPLES
from .audio_headers_gemoclap import AudioError, words_of
from .recordings_gemoclap import NAMELESS, check_rate, is_one_recording, name_of, read_audio
from .safety_gemoclap import EXTRACTORS, check_extractor_files, own_extractor_class, own_settings

try:
    import soxr
except ImportError:
    soxr = None

logger = logging.get_logger(__name__)

KALDI_FRAME, KALDI_HOP = 25, 10  # milliseconds: the frames of extractors that give no mask (AST)
SILENCE_PEAK = 1e-4  # -80 dBFS: about three steps of 16-bit audio


@lru_cache(maxsize=4)
def _extractor(name: str, settings: str) -> SequenceFeatureExtractor:
    """An extractor of transformers; kept, since its filter bank takes a while to make."""
    extractor_class = own_extractor_class(name)
    return extractor_class(**own_settings(extractor_class, json.loads(settings)))


@lru_cache(maxsize=8)
def _mel_filters(fft: int, bands: int, min_frequency: float, max_frequency: float, sampling_rate: int) -> np.ndarray:
    """The mel filter bank, `(fft / 2 + 1, bands)`: it is the same for every clip."""
    return mel_filter_bank(
        num_frequency_bins=fft // 2 + 1,
        num_mel_filters=bands,
        min_frequency=min_frequency,
        max_frequency=max_frequency,
        sampling_rate=sampling_rate,
        mel_scale="htk",
    )


def _name_in_list(audio, index: int) -> str:
    """The name of a recording in a list, which is its number if it has no other."""
    name = name_of(audio)
    return f"recording {index}" if name in NAMELESS else name


def _settings_of(own: SequenceFeatureExtractor) -> dict:
    derived = ("auto_map", "processor_class", "mel_filters", "window")
    return {name: value for name, value in json.loads(own.to_json_string()).items() if name not in derived}


def _fixed_seconds(own: SequenceFeatureExtractor) -> float | None:
    """How much an extractor of a fixed length takes in: Whisper's names seconds, AST's frames."""
    if hasattr(own, "chunk_length"):
        return float(own.chunk_length)
    return own.max_length * KALDI_HOP / 1000 if hasattr(own, "max_length") else None


def _check_numbers(values: dict) -> None:
    """Make sure that the numbers of a feature extractor have values that they may have; NaN and infinity are not."""
    checks = (
        ("a whole number of at least 1", lambda n: isinstance(n, numbers.Integral) and n >= 1, "num_mel_bins"),
        ("a number of at least 0.001 and at most 1", lambda n: 0.001 <= n <= 1, "frame_seconds hop_seconds"),
        ("a finite number above 0", lambda n: 0 < n < np.inf, "log_mel_std max_seconds max_frequency"),
        ("a finite number of at least 0", lambda n: 0 <= n < np.inf, "min_frequency min_seconds"),
        ("a finite number", np.isfinite, "log_mel_mean padding_value"),
    )
    for words, holds, names in checks:
        for name in names.split():
            value, may_be_none = values[name], name in ("max_seconds", "max_frequency")
            if value is None and may_be_none:
                continue
            if isinstance(value, bool) or not (isinstance(value, numbers.Real) and holds(value)):
                raise ValueError(f"{name}={value!r} must be {words}{' or None' if may_be_none else ''}")
    half = values["sampling_rate"] / 2
    highest = values["max_frequency"] or half
    if values["feature_type"] == "log_mel" and not values["min_frequency"] < highest <= half:
        name = "max_frequency" if values["max_frequency"] else "min_frequency"
        raise ValueError(
            f"{name}={values[name]!r} must be at most {half:g}, half the sampling rate, and min_frequency below "
            f"max_frequency"
        )
    if values["max_seconds"] is not None and values["max_seconds"] < values["min_seconds"]:
        raise ValueError(
            f"max_seconds={values['max_seconds']!r} must be at least min_seconds={values['min_seconds']!r}"
        )


class GEmoClapFeatureExtractor(SequenceFeatureExtractor):
    """Turns recordings into `input_values` or `input_features` and `audio_attention_mask`.

    Args:
        feature_type: `"wave"` for encoders of raw waves, `"log_mel"` for the compact one, `"own"` for those whose
            spectrograms are made by the extractor that transformers has for them (Whisper, Wav2Vec2-BERT, AST).
        sampling_rate: Rate that the audio tower was made for, in Hz.
        do_normalize: Bring every clip's wave to zero mean and unit variance, padding left out; so its level is gone.
        num_mel_bins: Mel bands of `"log_mel"`.
        frame_seconds: Window of `"log_mel"`, in seconds.
        hop_seconds: Step of `"log_mel"`, in seconds.
        min_frequency: Lowest frequency of the mel bands, in Hz.
        max_frequency: Highest, in Hz; None is half the sampling rate.
        log_mel_mean: Subtracted from the natural logarithm of the mel power; the default suits normalised speech.
        log_mel_std: Divides it then.
        min_seconds: A shorter clip is refused.
        max_seconds: A longer clip is cut to its beginning, with a warning; for encoders of a fixed length.
        own: For `"own"`, the settings of that extractor, with `feature_extractor_type`, one of `EXTRACTORS`.
        padding_value: Value of padding.
        strict: Refuse a recording whose header and content disagree (a wrong size, no last page of Ogg), instead of a
            warning.

    Raises:
        ValueError: If a value is not known or a number is out of its range.

    Example:
        >>> extractor = GEmoClapFeatureExtractor(feature_type="log_mel")
        >>> extractor({"array": np.random.randn(44100), "sampling_rate": 44100})["input_features"].shape
        torch.Size([1, 98, 64])
    """

    model_input_names = ["input_values", "audio_attention_mask"]

    def __init__(
        self,
        feature_type: str = "wave",
        sampling_rate: int = 16000,
        do_normalize: bool = True,
        num_mel_bins: int = 64,
        frame_seconds: float = 0.025,
        hop_seconds: float = 0.010,
        min_frequency: float = 50.0,
        max_frequency: float | None = None,
        log_mel_mean: float = 1.0,
        log_mel_std: float = 4.0,
        min_seconds: float = 0.1,
        max_seconds: float | None = None,
        padding_value: float = 0.0,
        own: dict | None = None,
        strict: bool = False,
        **kwargs,
    ):
        if feature_type not in ("wave", "log_mel", "own"):
            raise ValueError(f"feature_type={feature_type!r} is not known; choose 'wave', 'log_mel' or 'own'")
        if (feature_type == "own") != (own is not None):
            raise ValueError("feature_type='own' goes with own={'feature_extractor_type': ..., ...}, and only it")
        kwargs.pop("feature_size", None)
        sampling_rate = check_rate(sampling_rate, "feature extractor")
        _check_numbers(locals())
        super().__init__(
            feature_size=1 if feature_type == "wave" else num_mel_bins,
            sampling_rate=sampling_rate,
            padding_value=padding_value,
            **kwargs,
        )
        self.feature_type = feature_type
        self.do_normalize = do_normalize
        self.num_mel_bins = num_mel_bins
        self.frame_seconds = frame_seconds
        self.hop_seconds = hop_seconds
        self.min_frequency = min_frequency
        self.max_frequency = max_frequency
        self.log_mel_mean = log_mel_mean
        self.log_mel_std = log_mel_std
        self.min_seconds = min_seconds
        self.max_seconds = max_seconds
        self.own = own
        self.strict = strict
        self.model_input_names = [self.input_name, "audio_attention_mask"]

    @property
    def input_name(self) -> str:
        """The model input that is made here: `input_values` or `input_features`."""
        if self.feature_type == "own":
            return self._own_extractor().model_input_names[0]
        return "input_values" if self.feature_type == "wave" else "input_features"

    def _own_extractor(self) -> SequenceFeatureExtractor:
        settings = dict(self.own)
        name = settings.pop("feature_extractor_type", None)
        own_extractor_class(name)  # _extractor wants a name that can be a key
        return _extractor(name, json.dumps(settings, sort_keys=True))

    @classmethod
    def from_audio_pretrained(cls, audio_name_or_path: str, **kwargs) -> GEmoClapFeatureExtractor:
        """The extractor for a pretrained audio encoder, with the rate and normalisation of the encoder's own.

        Args:
            audio_name_or_path: The audio checkpoint.
            **kwargs: Fields that take precedence.

        Returns:
            The extractor.

        Raises:
            ValueError: If the checkpoint has no feature extractor, or one that is not in `EXTRACTORS`.
        """
        check_extractor_files(audio_name_or_path, (*EXTRACTORS, cls.__name__), {})
        try:
            own = AutoFeatureExtractor.from_pretrained(audio_name_or_path)
        except (OSError, ValueError, KeyError) as error:
            raise ValueError(
                f"{audio_name_or_path}: no feature extractor beside the audio encoder "
                f"(preprocessor_config.json): copy it there from the encoder's own repository ({error})"
            ) from None
        if type(own).__name__ == cls.__name__:
            return cls.from_pretrained(audio_name_or_path, **kwargs)
        settings = {"sampling_rate": own.sampling_rate, "padding_value": own.padding_value}
        if type(own).__name__ == "Wav2Vec2FeatureExtractor":
            return cls(feature_type="wave", **{**settings, "do_normalize": own.do_normalize, **kwargs})
        settings |= {"do_normalize": False, "own": _settings_of(own), "max_seconds": _fixed_seconds(own)}
        return cls(feature_type="own", **{**settings, **kwargs})

    def load(self, audio, sampling_rate: int | None = None, name: str | None = None) -> np.ndarray:
        """Read one recording at the model's rate.

        Args:
            audio: As for `read_audio`.
            sampling_rate: Rate of an array in Hz.
            name: What errors call it.

        Returns:
            `(time,)` float32.

        Raises:
            AudioError: As `read_audio`, or if it is shorter than `min_seconds` or cannot be resampled.
            ImportError: If the rate is another than the model's and soxr is not installed.
        """
        name = name or name_of(audio)
        wave, rate = read_audio(audio, sampling_rate, name, self.strict)
        if self.max_seconds and len(wave) > self.max_seconds * rate:
            logger.warning_once(
                f"{name}: {len(wave) / rate:.1f} s, of which the audio tower hears the first {self.max_seconds:g} s"
            )
            wave = wave[: int(self.max_seconds * rate)]
        if rate != self.sampling_rate:
            wave = self._resample(wave, rate, name)
        least = max(self.min_seconds, self.frame_seconds if self.feature_type == "log_mel" else 0)
        if len(wave) < max(1, least * self.sampling_rate):
            seconds = len(wave) / self.sampling_rate
            raise AudioError(f"{name}: too short, {seconds:.3f} s; {least:g} s is the least that can be judged")
        return wave

    def _resample(self, wave: np.ndarray, rate: int, name: str) -> np.ndarray:
        if soxr is None:
            raise ImportError(
                f"{name}: resampling from {rate} Hz to the model's {self.sampling_rate} Hz needs soxr: "
                f"pip install soxr, or give audio at {self.sampling_rate} Hz"
            )
        if len(wave) * self.sampling_rate > MAX_SAMPLES * rate:  # a low rate must not fill the memory
            raise AudioError(f"{name}: {len(wave)} samples at {rate} Hz are too long; cut it, or give the true rate")
        try:
            return soxr.resample(wave, rate, self.sampling_rate).astype(np.float32)
        except (ValueError, RuntimeError, MemoryError) as error:
            raise AudioError(f"{name}: cannot be resampled from {rate} Hz ({words_of(error)})") from None

    def load_speech(self, audio, sampling_rate: int | None = None, name: str | None = None) -> np.ndarray:
        """As `load`, and refuse silence: there is no emotion to learn or to name in it."""
        wave = self.load(audio, sampling_rate, name)
        if np.abs(wave - wave.mean()).max() < SILENCE_PEAK:
            raise AudioError(
                f"{name or name_of(audio)}: silent, no sample above -80 dBFS; leave it out or check the recording"
            )
        return wave

    def features(self, wave: np.ndarray) -> np.ndarray:
        """One clip at the model's rate: its wave `(time,)`, or its log-mel features `(frames, num_mel_bins)`."""
        if self.do_normalize:
            wave = (wave - wave.mean()) / np.sqrt(wave.var() + 1e-7)
        if self.feature_type != "log_mel":
            return wave.astype(np.float32)
        frame = round(self.frame_seconds * self.sampling_rate)
        fft = 2 ** int(np.ceil(np.log2(frame)))
        highest = self.max_frequency or self.sampling_rate / 2
        filters = _mel_filters(fft, self.num_mel_bins, self.min_frequency, highest, self.sampling_rate)
        mel = spectrogram(
            wave,
            window_function(frame, "hann"),
            frame_length=frame,
            hop_length=round(self.hop_seconds * self.sampling_rate),
            fft_length=fft,
            power=2.0,
            center=False,
            mel_filters=filters,
            mel_floor=1e-6,
            log_mel="log",
            dtype=np.float32,
        )
        return ((mel.T - self.log_mel_mean) / self.log_mel_std).astype(np.float32)

    def _own_features(self, wave: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """One clip's input as the family's extractor makes it, alone, and the mask of what in it is true."""
        own = self._own_extractor()
        made = own(wave, sampling_rate=self.sampling_rate, return_attention_mask=True, return_tensors="np")
        values = made[self.input_name][0]
        if "attention_mask" in made:
            return values, made["attention_mask"][0].astype(np.int64)
        frames = 1 + (len(wave) - KALDI_FRAME * self.sampling_rate // 1000) // (KALDI_HOP * self.sampling_rate // 1000)
        return values, (np.arange(len(values)) < max(1, frames)).astype(np.int64)

    def collate(self, clips: list[np.ndarray], return_tensors: str | None = "pt") -> BatchFeature:
        """Pad clips that `features` made to the longest of them, with the mask."""
        masks = [np.ones(len(clip), dtype=np.int64) for clip in clips]
        if self.feature_type == "own":
            clips, masks = zip(*map(self._own_features, clips), strict=True)
        values = np.full((len(clips), *max(clip.shape for clip in clips)), self.padding_value, dtype=np.float32)
        mask = np.zeros((len(clips), max(map(len, masks))), dtype=np.int64)
        for row, (clip, true) in enumerate(zip(clips, masks, strict=True)):
            values[row, : len(clip)] = clip
            mask[row, : len(true)] = true
        return BatchFeature({self.input_name: values, "audio_attention_mask": mask}, tensor_type=return_tensors)

    def __call__(
        self, audio, sampling_rate: int | None = None, return_tensors: str | None = "pt", padding: bool = True
    ) -> BatchFeature:
        """Turn one recording or a list of them into model inputs.

        Args:
            audio: A path, bytes, array, tensor, dict, or a list of these; see `read_audio`.
            sampling_rate: Rate of arrays in Hz.
            return_tensors: `"pt"`, `"np"` or None.
            padding: Must be true: a batch has one length, and the mask tells what is padding.

        Returns:
            `input_values` `(batch, samples)` or `input_features` `(batch, frames, num_mel_bins)`, and
            `audio_attention_mask` of the same batch and time.

        Raises:
            AudioError: If a recording cannot be used.
        """
        if not padding:
            raise ValueError("padding=False is not possible here: give the clips one by one instead")
        if is_one_recording(audio):
            return self.collate([self.features(self.load(audio, sampling_rate))], return_tensors)
        clips = list(audio)
        if not clips:
            raise AudioError("the list of recordings is empty")
        waves = (self.load(clip, sampling_rate, _name_in_list(clip, index)) for index, clip in enumerate(clips))
        return self.collate([self.features(wave) for wave in waves], return_tensors)


GEmoClapFeatureExtractor.register_for_auto_class("AutoFeatureExtractor")
