"""The processor: from recordings and prompts to model inputs."""

from __future__ import annotations

import re

import transformers
from transformers import AutoTokenizer
from transformers.feature_extraction_utils import BatchFeature
from transformers.processing_utils import ProcessorMixin

from .audio_headers_gemoclap import AudioError
from .feature_extraction_gemoclap import GEmoClapFeatureExtractor
from .safety_gemoclap import check_processor_files, check_tokenizer_file, refuse_foreign_code, split_hub_options

MODALITY_OPTIONS = ("text_kwargs", "audio_kwargs", "images_kwargs", "videos_kwargs", "common_kwargs")
AUDIO_FILE = re.compile(r".*\.(wav|flac|mp3|ogg|opus|m4a|aac|aiff?|wma|webm)", re.IGNORECASE | re.DOTALL)


class GEmoClapProcessor(ProcessorMixin):
    """Combines a feature extractor for audio and a tokenizer for prompts.

    Args:
        feature_extractor: A `GEmoClapFeatureExtractor`.
        tokenizer: The text tower's tokenizer.

    Example:
        >>> processor = AutoProcessor.from_pretrained("runs/sl", trust_remote_code=True)
        >>> inputs = processor(audio="clip.wav", text=["this person is feeling angry", "this person is feeling sad"])
        >>> model(**inputs).logits_per_audio.shape
        torch.Size([1, 2])
    """

    if int(transformers.__version__.split(".")[0]) < 5:
        attributes = ["feature_extractor", "tokenizer"]
        feature_extractor_class = "AutoFeatureExtractor"
        tokenizer_class = "AutoTokenizer"

    def __init__(self, feature_extractor, tokenizer):
        # Exclude the token_type_ids of BERT's tokenizer, which single sentences do not need. init_kwargs are saved.
        names = ["input_ids", "attention_mask"]
        tokenizer.model_input_names = tokenizer.init_kwargs["model_input_names"] = names
        super().__init__(feature_extractor, tokenizer)

    @staticmethod
    def _repository_files():
        """Never called: transformers 4 copies only the modules that this file imports, not their imports."""
        from .audio_files_gemoclap import decode
        from .prompts_gemoclap import CONTROL
        from .recordings_gemoclap import read_audio
        from .spectrograms_gemoclap import log_mel
        from .speech_gemoclap import trim_silence

        return decode, CONTROL, read_audio, log_mel, trim_silence

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, **kwargs) -> GEmoClapProcessor:
        """Load a processor as in transformers, after checking the files of the checkpoint.

        Args:
            pretrained_model_name_or_path: Name or path of a checkpoint.
            *args: Positional arguments of transformers' method.
            **kwargs: Keyword arguments of transformers' method.

        Raises:
            ValueError: If its files name other parts than `GEmoClapFeatureExtractor` and a tokenizer of transformers,
                or, with `trust_remote_code=True`, code of another repository.
        """
        where = split_hub_options(kwargs)[0]
        if kwargs.get("trust_remote_code"):
            refuse_foreign_code(pretrained_model_name_or_path, where)
        check_processor_files(pretrained_model_name_or_path, (GEmoClapFeatureExtractor.__name__,), where)
        return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)

    @classmethod
    def from_audio_text_pretrained(
        cls, audio_name_or_path: str, text_name_or_path: str, **features
    ) -> GEmoClapProcessor:
        """Create the processor for `GEmoClapModel.from_audio_text_pretrained` with the same two names.

        Args:
            audio_name_or_path: Checkpoint of the audio encoder.
            text_name_or_path: Checkpoint of the text encoder.
            **features: Arguments of the feature extractor, which override those of the checkpoint, and
                `audio_window_seconds`, the window of Whisper that the model has.

        Returns:
            The processor.

        Raises:
            ValueError: If the feature extractor or the tokenizer is missing.
        """
        extractor = GEmoClapFeatureExtractor.from_audio_pretrained(audio_name_or_path, **features)
        return cls(extractor, cls.load_tokenizer(text_name_or_path))

    @staticmethod
    def load_tokenizer(name: str):
        """Load the tokenizer of a pretrained text encoder.

        Raises:
            ValueError: If it is missing, or if its files do not name a tokenizer of transformers.
        """
        check_tokenizer_file(name, {})
        reason = "the vocabulary is empty"
        try:
            tokenizer = AutoTokenizer.from_pretrained(name)
        except Exception as error:  # without a file, tokenizers raise exceptions of any type, even Exception itself
            tokenizer, reason = None, str(error).splitlines()[0]
        # Without a file, transformers 5 may create a tokenizer with an empty vocabulary.
        if tokenizer is None or len(tokenizer) <= len(tokenizer.all_special_tokens):
            raise ValueError(
                f"{name}: the text encoder has no tokenizer (tokenizer.json, or vocab.json and merges.txt, or "
                f"vocab.txt): copy the files from the encoder's repository ({reason})"
            )
        return tokenizer

    @property
    def model_input_names(self) -> list[str]:
        """Names of the inputs that `__call__` can return."""
        return [*self.feature_extractor.model_input_names, *self.tokenizer.model_input_names]

    def __call__(
        self,
        audio=None,
        sampling_rate: int | None = None,
        text: str | list[str] | None = None,
        return_tensors: str | None = "pt",
        padding: bool | str = True,
        **modality_options: dict | None,
    ) -> BatchFeature:
        """Convert recordings, prompts, or both to model inputs.

        Args:
            audio: A path, bytes, a `(time,)` or `(channels, time)` array, a dict with `array`, `bytes` or `path` and
                `sampling_rate`, or a list of these.
            sampling_rate: Rate of arrays in Hz.
            text: One prompt or a list of prompts.
            return_tensors: `"pt"` or `"np"`.
            padding: Padding of the prompts. Audio is always padded to the longest clip.
            **modality_options: Options as the processors of transformers 5 take them: `text_kwargs` for the tokenizer,
                `audio_kwargs` for the feature extractor, and `common_kwargs` for both, which the other two override.
                `images_kwargs` and `videos_kwargs` are ignored.

        Returns:
            `input_values` or `input_features` and `audio_attention_mask` for audio; `input_ids` and `attention_mask`
            for text.

        Raises:
            AudioError: If a recording cannot be used, or if a prompt is the name of an audio file.
            TypeError: If an option is unknown.
            ValueError: If neither audio nor text is given, or if `text` is not a prompt or a list of prompts.
        """
        if unknown := sorted(modality_options.keys() - set(MODALITY_OPTIONS)):
            raise TypeError(f"unknown options {', '.join(unknown)}; choose from {', '.join(MODALITY_OPTIONS)}")
        common, for_audio, for_text = (
            modality_options.get(f"{name}_kwargs") or {} for name in ("common", "audio", "text")
        )
        if audio is None and text is None:
            raise ValueError("give audio, text, or both")
        inputs = BatchFeature()
        if audio is not None:
            options = {"sampling_rate": sampling_rate, "return_tensors": return_tensors} | common | for_audio
            inputs.update(self.feature_extractor(audio, **options))
        if text is not None:
            options = {"padding": padding, "truncation": True, "return_tensors": return_tensors} | common | for_text
            inputs.update(self.tokenizer(_prompts(text), **options))
        return inputs


def _prompts(text) -> list[str]:
    prompts = [text] if isinstance(text, str) else list(text) if hasattr(text, "__iter__") else []
    if not prompts or not all(isinstance(prompt, str) for prompt in prompts):
        raise ValueError(f"text={text!r} must be a prompt or a non-empty list of prompts")
    if names := [prompt for prompt in prompts if AUDIO_FILE.fullmatch(prompt)]:
        # sentence-transformers takes a path as text unless the file exists and has one of five suffixes
        raise AudioError(
            f"{names[0]}: the name of an audio file, given as text: check that the file exists, and give it as audio, "
            f'for sentence-transformers as {{"audio": path}}'
        )
    return prompts


GEmoClapProcessor.register_for_auto_class()
