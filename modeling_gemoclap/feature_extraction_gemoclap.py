"""Feature extraction: from recordings of any accepted type to the input of an audio tower."""

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
from .audio_headers_gemoclap import AudioError, error_summary
from .recordings_gemoclap import GENERIC_NAMES, check_rate, is_one_recording, name_of, read_audio
from .safety_gemoclap import EXTRACTORS, check_extractor_files, constructor_settings, encoder_extractor_class

try:
    import soxr
except ImportError:
    soxr = None

logger = logging.get_logger(__name__)

KALDI_FRAME, KALDI_HOP = 25, 10  # milliseconds: the frames of extractors that return no mask (AST)
SILENCE_PEAK = 1e-4  # -80 dBFS: about three quantisation steps of 16-bit audio


@lru_cache(maxsize=4)
def _cached_extractor(name: str, settings: str) -> SequenceFeatureExtractor:
    """An extractor of transformers. The cache avoids computing its filter bank again."""
    extractor_class = encoder_extractor_class(name)
    return extractor_class(**constructor_settings(extractor_class, json.loads(settings)))


@lru_cache(maxsize=8)
def _mel_filters(fft: int, bands: int, min_frequency: float, max_frequency: float, sampling_rate: int) -> np.ndarray:
    """The mel filter bank, `(fft / 2 + 1, bands)`."""
    return mel_filter_bank(
        num_frequency_bins=fft // 2 + 1,
        num_mel_filters=bands,
        min_frequency=min_frequency,
        max_frequency=max_frequency,
        sampling_rate=sampling_rate,
        mel_scale="htk",
    )


def _name_in_list(audio, index: int) -> str:
    """The name of a recording in a list; without a name of its source, its index."""
    name = name_of(audio)
    return f"recording {index}" if name in GENERIC_NAMES else name


def _stored_settings(extractor: SequenceFeatureExtractor) -> dict:
    """The settings of an extractor of transformers, without those that are derived from others."""
    derived = ("auto_map", "processor_class", "mel_filters", "window")
    return {name: value for name, value in json.loads(extractor.to_json_string()).items() if name not in derived}


def _input_seconds(extractor: SequenceFeatureExtractor) -> float | None:
    """The length of an extractor's fixed-length input in seconds, else None. Whisper has seconds, AST has frames."""
    if hasattr(extractor, "chunk_length"):
        return float(extractor.chunk_length)
    return extractor.max_length * KALDI_HOP / 1000 if hasattr(extractor, "max_length") else None


def _check_numbers(values: dict) -> None:
    """Check the numbers of a feature extractor; NaN and infinity are invalid.

    Raises:
        ValueError: If a number is out of range.
    """
    checks = (
        ("a whole number of at least 1", lambda n: isinstance(n, numbers.Integral) and n >= 1, "num_mel_bins"),
        ("a number of at least 0.001 and at most 1", lambda n: 0.001 <= n <= 1, "frame_seconds hop_seconds"),
        ("a finite number above 0", lambda n: 0 < n < np.inf, "log_mel_std max_seconds max_frequency"),
        ("a finite number of at least 0", lambda n: 0 <= n < np.inf, "min_frequency min_seconds"),
        ("a finite number", np.isfinite, "log_mel_mean padding_value"),
    )
    for description, is_valid, names in checks:
        for name in names.split():
            value, may_be_none = values[name], name in ("max_seconds", "max_frequency")
            if value is None and may_be_none:
                continue
            if isinstance(value, bool) or not (isinstance(value, numbers.Real) and is_valid(value)):
                raise ValueError(f"{name}={value!r} must be {description}{' or None' if may_be_none else ''}")
    half = values["sampling_rate"] / 2
    highest = values["max_frequency"] or half
    if values["feature_type"] == "log_mel" and not values["min_frequency"] < highest <= half:
        name = "max_frequency" if values["max_frequency"] else "min_frequency"
        raise ValueError(
            f"{name}={values[name]!r} is invalid: max_frequency must be at most {half:g}, half the sampling rate, and "
            f"min_frequency must be below max_frequency"
        )
    if values["max_seconds"] is not None and values["max_seconds"] < values["min_seconds"]:
        raise ValueError(
            f"max_seconds={values['max_seconds']!r} must be at least min_seconds={values['min_seconds']!r}"
        )


class GEmoClapFeatureExtractor(SequenceFeatureExtractor):
    """Converts recordings to `input_values` or `input_features` and `audio_attention_mask`.

    Args:
        feature_type: `"wave"` for encoders of raw waveforms, `"log_mel"` for the compact encoder, `"own"` for encoders
            whose spectrograms the extractor of transformers computes (Whisper, Wav2Vec2-BERT, AST).
        sampling_rate: Sampling rate of the audio tower, in Hz.
        do_normalize: Whether to normalise the waveform of every clip, without padding, to zero mean and unit variance.
        num_mel_bins: Number of mel bands of `"log_mel"`.
        frame_seconds: Window length of `"log_mel"`, in seconds.
        hop_seconds: Hop length of `"log_mel"`, in seconds.
        min_frequency: Lowest frequency of the mel bands, in Hz.
        max_frequency: Highest frequency of the mel bands, in Hz; None for half the sampling rate.
        log_mel_mean: Mean that is subtracted from the natural logarithm of the mel power; the default suits normalised
            speech.
        log_mel_std: Standard deviation by which the result is divided.
        min_seconds: Minimum length of a clip in seconds; a shorter clip raises an error.
        max_seconds: Maximum length of a clip in seconds; a longer clip is truncated with a warning. For encoders of
            fixed-length input.
        own: For `"own"`, the settings of the extractor, with `feature_extractor_type`, one of `EXTRACTORS`.
        padding_value: Value of padding.
        strict: Whether a recording whose header disagrees with its content (a wrong size, no last page of Ogg) raises
            an error instead of a warning.

    Raises:
        ValueError: If an option is unknown or a number is out of range.

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
            raise ValueError(f"feature_type={feature_type!r} is unknown; choose 'wave', 'log_mel' or 'own'")
        if (feature_type == "own") != (own is not None):
            raise ValueError("feature_type='own' requires own={'feature_extractor_type': ..., ...}, and only it does")
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
        """Name of the model input: `input_values` or `input_features`."""
        if self.feature_type == "own":
            return self._encoder_extractor().model_input_names[0]
        return "input_values" if self.feature_type == "wave" else "input_features"

    def _encoder_extractor(self) -> SequenceFeatureExtractor:
        settings = dict(self.own)
        name = settings.pop("feature_extractor_type", None)
        encoder_extractor_class(name)  # raises an error for names that cannot be keys of the cache
        return _cached_extractor(name, json.dumps(settings, sort_keys=True))

    @classmethod
    def from_audio_pretrained(cls, audio_name_or_path: str, **kwargs) -> GEmoClapFeatureExtractor:
        """Create the extractor for a pretrained audio encoder, with the sampling rate and normalisation of its files.

        Args:
            audio_name_or_path: The audio checkpoint.
            **kwargs: Arguments of the constructor, which override those of the checkpoint.

        Returns:
            The extractor.

        Raises:
            ValueError: If the checkpoint has no feature extractor, or one that is not in `EXTRACTORS`.
        """
        check_extractor_files(audio_name_or_path, (*EXTRACTORS, cls.__name__), {})
        try:
            original = AutoFeatureExtractor.from_pretrained(audio_name_or_path)
        except (OSError, ValueError, KeyError) as error:
            raise ValueError(
                f"{audio_name_or_path}: the audio encoder has no feature extractor (preprocessor_config.json): copy "
                f"the file from the encoder's repository ({error})"
            ) from None
        if type(original).__name__ == cls.__name__:
            return cls.from_pretrained(audio_name_or_path, **kwargs)
        settings = {"sampling_rate": original.sampling_rate, "padding_value": original.padding_value}
        if type(original).__name__ == "Wav2Vec2FeatureExtractor":
            return cls(feature_type="wave", **{**settings, "do_normalize": original.do_normalize, **kwargs})
        settings |= {"do_normalize": False, "own": _stored_settings(original)}
        return cls(feature_type="own", **{**settings, "max_seconds": _input_seconds(original), **kwargs})

    def load(self, audio, sampling_rate: int | None = None, name: str | None = None) -> np.ndarray:
        """Read one recording at the sampling rate of the model.

        Args:
            audio: A recording; see `read_audio`.
            sampling_rate: Rate of an array in Hz.
            name: Name of the recording in messages.

        Returns:
            `(time,)` float32.

        Raises:
            AudioError: As for `read_audio`, or if the recording is shorter than `min_seconds` or cannot be resampled.
            ImportError: If resampling requires soxr and it is not installed.
        """
        name = name or name_of(audio)
        wave, rate = read_audio(audio, sampling_rate, name, self.strict)
        if self.max_seconds and len(wave) > self.max_seconds * rate:
            logger.warning_once(
                f"{name}: {len(wave) / rate:.1f} s long; the audio tower uses only the first {self.max_seconds:g} s"
            )
            wave = wave[: int(self.max_seconds * rate)]
        if rate != self.sampling_rate:
            wave = self._resample(wave, rate, name)
        minimum = max(self.min_seconds, self.frame_seconds if self.feature_type == "log_mel" else 0)
        if len(wave) < max(1, minimum * self.sampling_rate):
            seconds = len(wave) / self.sampling_rate
            raise AudioError(f"{name}: too short, {seconds:.3f} s; the minimum is {minimum:g} s")
        return wave

    def _resample(self, wave: np.ndarray, rate: int, name: str) -> np.ndarray:
        if soxr is None:
            raise ImportError(
                f"{name}: resampling from {rate} Hz to {self.sampling_rate} Hz, the rate of the model, requires soxr: "
                f"pip install soxr, or give audio at {self.sampling_rate} Hz"
            )
        if len(wave) * self.sampling_rate > MAX_SAMPLES * rate:  # a low rate must not exhaust the memory
            raise AudioError(f"{name}: {len(wave)} samples at {rate} Hz are too long; cut it, or give the true rate")
        try:
            return soxr.resample(wave, rate, self.sampling_rate).astype(np.float32)
        except (ValueError, RuntimeError, MemoryError) as error:
            raise AudioError(f"{name}: cannot be resampled from {rate} Hz ({error_summary(error)})") from None

    def load_speech(self, audio, sampling_rate: int | None = None, name: str | None = None) -> np.ndarray:
        """Read one recording as `load` does, and raise an error if it is silent.

        Args:
            audio: A recording; see `read_audio`.
            sampling_rate: Rate of an array in Hz.
            name: Name of the recording in messages.

        Returns:
            `(time,)` float32.

        Raises:
            AudioError: As for `load`, or if no sample exceeds -80 dBFS.
        """
        wave = self.load(audio, sampling_rate, name)
        if np.abs(wave - wave.mean()).max() < SILENCE_PEAK:
            raise AudioError(
                f"{name or name_of(audio)}: silent, no sample above -80 dBFS; remove it or check the recording"
            )
        return wave

    def features(self, wave: np.ndarray) -> np.ndarray:
        """Compute the features of one clip.

        Args:
            wave: `(time,)`, at the sampling rate of the model.

        Returns:
            The waveform `(time,)`, or log-mel features `(frames, num_mel_bins)`.
        """
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

    def _encoder_features(self, wave: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The input for one clip from the extractor of transformers, and the mask of its valid frames."""
        extractor = self._encoder_extractor()
        inputs = extractor(wave, sampling_rate=self.sampling_rate, return_attention_mask=True, return_tensors="np")
        values = inputs[self.input_name][0]
        if "attention_mask" in inputs:
            return values, inputs["attention_mask"][0].astype(np.int64)
        frames = 1 + (len(wave) - KALDI_FRAME * self.sampling_rate // 1000) // (KALDI_HOP * self.sampling_rate // 1000)
        return values, (np.arange(len(values)) < max(1, frames)).astype(np.int64)

    def collate(self, clips: list[np.ndarray], return_tensors: str | None = "pt") -> BatchFeature:
        """Pad clips to the longest of them, with their mask.

        Args:
            clips: Outputs of `features`.
            return_tensors: `"pt"`, `"np"` or None.

        Returns:
            The model inputs; see `__call__`.
        """
        masks = [np.ones(len(clip), dtype=np.int64) for clip in clips]
        if self.feature_type == "own":
            clips, masks = zip(*map(self._encoder_features, clips), strict=True)
        values = np.full((len(clips), *max(clip.shape for clip in clips)), self.padding_value, dtype=np.float32)
        mask = np.zeros((len(clips), max(map(len, masks))), dtype=np.int64)
        for row, (clip, clip_mask) in enumerate(zip(clips, masks, strict=True)):
            values[row, : len(clip)] = clip
            mask[row, : len(clip_mask)] = clip_mask
        return BatchFeature({self.input_name: values, "audio_attention_mask": mask}, tensor_type=return_tensors)

    def __call__(
        self, audio, sampling_rate: int | None = None, return_tensors: str | None = "pt", padding: bool = True
    ) -> BatchFeature:
        """Convert one recording or a list of recordings to model inputs.

        Args:
            audio: A path, bytes, array, tensor, dict, or a list of these; see `read_audio`.
            sampling_rate: Rate of arrays in Hz.
            return_tensors: `"pt"`, `"np"` or None.
            padding: Must be true.

        Returns:
            `input_values` `(batch, samples)` or `input_features` `(batch, frames, num_mel_bins)`, and
            `audio_attention_mask` `(batch, samples or frames)`, 1 for valid input and 0 for padding.

        Raises:
            AudioError: If a recording cannot be used.
            ValueError: If `padding` is false.
        """
        if not padding:
            raise ValueError("padding=False is not supported: give the clips one by one instead")
        if is_one_recording(audio):
            return self.collate([self.features(self.load(audio, sampling_rate))], return_tensors)
        clips = list(audio)
        if not clips:
            raise AudioError("the list of recordings is empty")
        waves = (self.load(clip, sampling_rate, _name_in_list(clip, index)) for index, clip in enumerate(clips))
        return self.collate([self.features(wave) for wave in waves], return_tensors)


GEmoClapFeatureExtractor.register_for_auto_class("AutoFeatureExtractor")
