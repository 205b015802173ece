"""Feature extraction: from recordings of any accepted type to the input of an audio tower."""

from __future__ import annotations

import inspect
import numbers

import numpy as np
from transformers import AutoFeatureExtractor
from transformers.feature_extraction_sequence_utils import SequenceFeatureExtractor
from transformers.feature_extraction_utils import BatchFeature
from transformers.utils import logging

from .audio_files_gemoclap import MAX_SAMPLES
from .audio_headers_gemoclap import AudioError, error_summary
from .prompts_gemoclap import CONTROL as _CONTROL  # noqa: F401  transformers 4 copies only direct imports
from .recordings_gemoclap import GENERIC_NAMES, check_rate, is_one_recording, name_of, read_audio
from .safety_gemoclap import EXTRACTORS, check_extractor_files
from .spectrograms_gemoclap import (
    check_window,
    encoder_extractor,
    encoder_features,
    log_mel,
    longest_input,
    stored_settings,
    with_window,
)
from .speech_gemoclap import set_level, trim_silence

try:
    import soxr
except ImportError:
    soxr = None

logger = logging.get_logger(__name__)

SILENCE_PEAK = 1e-4  # -80 dBFS: about three quantisation steps of 16-bit audio


def _name_in_list(audio, index: int) -> str:
    """The name of a recording in a list; without a name of its source, its index."""
    name = name_of(audio)
    return f"recording {index}" if name in GENERIC_NAMES else name


def _check_numbers(values: dict) -> None:
    """Check the numbers of a feature extractor; NaN and infinity are invalid.

    Raises:
        ValueError: If a number is out of range.
    """
    checks = (
        ("an integer from 1 to 1024", lambda n: isinstance(n, numbers.Integral) and 1 <= n <= 1024, "num_mel_bins"),
        ("a number of at least 0.001 and at most 1", lambda n: 0.001 <= n <= 1, "frame_seconds hop_seconds"),
        ("a finite number above 0", lambda n: 0 < n < np.inf, "max_seconds max_frequency"),
        ("a number of at least 1e-6 and at most 1e6", lambda n: 1e-6 <= n <= 1e6, "log_mel_std"),
        ("a finite number of at least 0", lambda n: 0 <= n < np.inf, "min_frequency min_seconds"),
        ("a number from -1e6 to 1e6", lambda n: -1e6 <= n <= 1e6, "log_mel_mean padding_value"),  # float32 input
        ("a finite number of at most 0", lambda n: -np.inf < n <= 0, "level_db"),
    )
    for description, is_valid, names in checks:
        for name in names.split():
            value, may_be_none = values[name], name in ("max_seconds", "max_frequency", "level_db")
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
    if values["level_db"] is not None and values["do_normalize"]:
        raise ValueError(
            f"level_db={values['level_db']!r} and do_normalize=True both set the level of a clip: give "
            f"do_normalize=False with level_db"
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
            fixed-length input, except Whisper, which hears a longer clip in several windows.
        own: For `"own"`, the settings of the extractor, with `feature_extractor_type`, one of `EXTRACTORS`. For
            Whisper, `chunk_length` is the window in seconds, a multiple of 0.02.
        padding_value: Value of padding.
        strict: Whether a recording whose header disagrees with its content (a wrong size, no last page of Ogg) raises
            an error instead of a warning.
        trim_silence: Whether to cut what is before the first and after the last speech of a clip; see `speech_span`.
        level_db: Level to which the waveform of every clip is brought, with zero mean: its root mean square in dBFS, a
            number of at most 0; None for its own level. It excludes `do_normalize`. Whisper hears the absolute level.

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
        trim_silence: bool = False,
        level_db: float | None = None,
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
        self.trim_silence = trim_silence
        self.level_db = level_db
        self.model_input_names = [self.input_name, "audio_attention_mask"]

    @property
    def input_name(self) -> str:
        """Name of the model input: `input_values` or `input_features`."""
        if self.feature_type == "own":
            return encoder_extractor(self.own).model_input_names[0]
        return "input_values" if self.feature_type == "wave" else "input_features"

    @classmethod
    def from_dict(cls, feature_extractor_dict: dict, **kwargs):
        """Build an extractor from a dict, as in transformers, but also with settings that the dict does not have.

        Args:
            feature_extractor_dict: The content of a file.
            **kwargs: Settings that override it.

        Raises:
            ValueError: If a setting is invalid.
        """
        settings = inspect.signature(cls.__init__).parameters.keys() - {"self", "kwargs"}
        given = {name: value for name, value in kwargs.items() if name in settings}
        return super().from_dict(feature_extractor_dict | given, **kwargs)

    @classmethod
    def from_audio_pretrained(
        cls, audio_name_or_path: str, audio_window_seconds: float | None = None, **kwargs
    ) -> GEmoClapFeatureExtractor:
        """Create the extractor for a pretrained audio encoder, with the sampling rate and normalisation of its files.

        Args:
            audio_name_or_path: The audio checkpoint.
            audio_window_seconds: Whisper's window in seconds, as for the model; None: that of the checkpoint.
            **kwargs: Arguments of the constructor, which override those of the checkpoint.

        Returns:
            The extractor.

        Raises:
            ValueError: If the checkpoint has no feature extractor, or one that is not in `EXTRACTORS`, or if the
                window is invalid.
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
            extractor = cls.from_pretrained(audio_name_or_path, **kwargs)
            return extractor if audio_window_seconds is None else extractor.set_window(audio_window_seconds)
        settings = {"sampling_rate": original.sampling_rate, "padding_value": original.padding_value}
        if type(original).__name__ == "Wav2Vec2FeatureExtractor":
            settings |= {"feature_type": "wave", "do_normalize": original.do_normalize}
        else:
            settings |= {"feature_type": "own", "do_normalize": False, "own": stored_settings(original)}
            settings["max_seconds"] = longest_input(original)
        extractor = cls(**(settings | kwargs))
        return extractor if audio_window_seconds is None else extractor.set_window(audio_window_seconds)

    def set_window(self, seconds: float) -> GEmoClapFeatureExtractor:
        """Set the window of Whisper's input, in seconds, and return the extractor.

        Raises:
            ValueError: If the extractor is not that of Whisper, or if the window is not a multiple of 0.02 s or longer
                than the present one.
        """
        self.own = with_window(self.own, seconds)
        return self

    def check_window(self, audio_config) -> None:
        """Check that an audio tower has the window of the extractor.

        Args:
            audio_config: Configuration of the audio tower.

        Raises:
            ValueError: If both are those of Whisper and their windows differ.
        """
        check_window(self.own, audio_config)

    def load(self, audio, sampling_rate: int | None = None, name: str | None = None) -> np.ndarray:
        """Read one recording at the sampling rate of the model, without silence at its ends if `trim_silence` is set.

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
        if not self.trim_silence:
            wave = self._truncate(wave, rate, name)
        if rate != self.sampling_rate:
            wave = self._resample(wave, rate, name)
        if self.trim_silence:  # before a long clip is truncated, so that silence takes none of its length
            wave = self._truncate(trim_silence(wave, self.sampling_rate), self.sampling_rate, name)
        minimum = max(self.min_seconds, self.frame_seconds if self.feature_type == "log_mel" else 0)
        if len(wave) < max(1, minimum * self.sampling_rate):
            seconds, of_what = len(wave) / self.sampling_rate, " of speech" if self.trim_silence else ""
            raise AudioError(f"{name}: too short, {seconds:.3f} s{of_what}; the minimum is {minimum:g} s")
        return wave

    def _truncate(self, wave: np.ndarray, rate: int, name: str) -> np.ndarray:
        if not self.max_seconds or len(wave) <= self.max_seconds * rate:
            return wave
        logger.warning_once(
            f"{name}: {len(wave) / rate:.1f} s long; the audio tower uses only the first {self.max_seconds:g} s"
        )
        return wave[: int(self.max_seconds * rate)]

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
            wave = wave - wave.mean()
            wave /= np.sqrt(np.square(wave).mean() + 1e-7)
        elif self.level_db is not None:
            wave = set_level(wave, self.level_db)
        if self.feature_type != "log_mel":
            return wave.astype(np.float32)
        seconds = self.frame_seconds, self.hop_seconds
        mel = log_mel(wave, self.sampling_rate, *seconds, self.num_mel_bins, (self.min_frequency, self.max_frequency))
        return (mel - np.float32(self.log_mel_mean)) / np.float32(self.log_mel_std)

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
            clips, masks = zip(*(encoder_features(self.own, clip, self.sampling_rate) for clip in clips), strict=True)
        values = np.full((len(clips), *max(clip.shape for clip in clips)), self.padding_value, dtype=np.float32)
        mask = np.zeros((len(clips), max(map(len, masks))), dtype=np.int64)
        for row, (clip, clip_mask) in enumerate(zip(clips, masks, strict=True)):
            values[(row, *map(slice, clip.shape))] = clip
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
            `input_values` `(batch, samples)` or `input_features` `(batch, frames, num_mel_bins)`, for Whisper
            `(batch, num_mel_bins, windows * frames)`, and `audio_attention_mask` `(batch, samples or frames)`, 1 for
            valid input and 0 for padding.

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
