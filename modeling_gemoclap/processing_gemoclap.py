"""From recordings and prompts to model inputs."""

from __future__ import annotations

import transformers
from transformers import AutoTokenizer
from transformers.feature_extraction_utils import BatchFeature
from transformers.processing_utils import ProcessorMixin

from .feature_extraction_gemoclap import GEmoClapFeatureExtractor
from .safety_gemoclap import check_processor_files, check_tokenizer_file, hub_options, refuse_code_of_others


class GEmoClapProcessor(ProcessorMixin):
    """A feature extractor for audio and a tokenizer for prompts, in one.

    Args:
        feature_extractor: A `GEmoClapFeatureExtractor`.
        tokenizer: The text tower's tokenizer.

    Example:
        >>> processor = AutoProcessor.from_pretrained("gemo-clap", trust_remote_code=True)
        >>> inputs = processor(audio="clip.wav", text=["this person is feeling angry", "this person is feeling sad"])
        >>> model(**inputs).logits_per_audio.shape
        torch.Size([1, 2])
    """

    if int(transformers.__version__.split(".")[0]) < 5:
        attributes = ["feature_extractor", "tokenizer"]
        feature_extractor_class = "AutoFeatureExtractor"
        tokenizer_class = "AutoTokenizer"

    def __init__(self, feature_extractor, tokenizer):
        # BERT's tokenizer adds token_type_ids, which a prompt, one sentence, has no use for; init_kwargs are saved.
        names = ["input_ids", "attention_mask"]
        tokenizer.model_input_names = tokenizer.init_kwargs["model_input_names"] = names
        super().__init__(feature_extractor, tokenizer)

    @staticmethod
    def _repository_files():
        """Never called: transformers 4 copies the modules that this file names, not those that these name."""
        from .audio_files_gemoclap import decode
        from .audio_headers_gemoclap import AudioError
        from .recordings_gemoclap import read_audio

        return decode, AudioError, read_audio

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, **kwargs) -> GEmoClapProcessor:
        """As transformers'.

        Args:
            pretrained_model_name_or_path: Name or path of a checkpoint.
            *args: For transformers.
            **kwargs: Likewise.

        Raises:
            ValueError: If its files name other parts than our feature extractor and a tokenizer of transformers, or,
                with `trust_remote_code=True`, code of another place.
        """
        where = hub_options(kwargs)[0]
        if kwargs.get("trust_remote_code"):
            refuse_code_of_others(pretrained_model_name_or_path, where)
        check_processor_files(pretrained_model_name_or_path, (GEmoClapFeatureExtractor.__name__,), where)
        return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)

    @classmethod
    def from_audio_text_pretrained(
        cls, audio_name_or_path: str, text_name_or_path: str, **features
    ) -> GEmoClapProcessor:
        """The processor for `GEmoClapModel.from_audio_text_pretrained` with the same two names.

        Args:
            audio_name_or_path: The audio encoder's checkpoint.
            text_name_or_path: The text encoder's checkpoint.
            **features: Fields of the feature extractor that take precedence.

        Returns:
            The processor.

        Raises:
            ValueError: If the feature extractor or the tokenizer is missing.
        """
        extractor = GEmoClapFeatureExtractor.from_audio_pretrained(audio_name_or_path, **features)
        return cls(extractor, cls.load_tokenizer(text_name_or_path))

    @staticmethod
    def load_tokenizer(name: str):
        """The tokenizer of a pretrained text encoder.

        Raises:
            ValueError: If it is missing, or its files name no tokenizer of transformers.
        """
        check_tokenizer_file(name, {})
        reason = "what is there knows no word"
        try:
            tokenizer = AutoTokenizer.from_pretrained(name)
        except Exception as error:  # the tokenizers of a missing file raise what they like, a bare Exception among it
            tokenizer, reason = None, str(error).splitlines()[0]
        if tokenizer is None or len(tokenizer) <= len(tokenizer.all_special_tokens):  # transformers 5 makes empty ones
            raise ValueError(
                f"{name}: no tokenizer beside the text encoder (tokenizer.json, or vocab.json and merges.txt, or "
                f"vocab.txt): copy it there from the encoder's own repository ({reason})"
            )
        return tokenizer

    @property
    def model_input_names(self) -> list[str]:
        """Names of all that `__call__` can return."""
        return [*self.feature_extractor.model_input_names, *self.tokenizer.model_input_names]

    def __call__(
        self,
        audio=None,
        sampling_rate: int | None = None,
        text: str | list[str] | None = None,
        return_tensors: str | None = "pt",
        padding: bool | str = True,
    ) -> BatchFeature:
        """Turn recordings, prompts, or both into model inputs.

        Args:
            audio: A path, bytes, a `(time,)` or `(channels, time)` array, a dict with `array`, `bytes` or `path` and
                `sampling_rate`, or a list of these.
            sampling_rate: Rate of arrays in Hz; files carry their own.
            text: One prompt or a list of them.
            return_tensors: `"pt"` or `"np"`.
            padding: Padding of the prompts; audio is padded to the longest clip, with its mask.

        Returns:
            `input_values` or `input_features` and `audio_attention_mask` for audio; `input_ids` and `attention_mask`
            for text.

        Raises:
            AudioError: If a recording cannot be used.
            ValueError: If neither audio nor text is given, or the text is no list of prompts.
        """
        if audio is None and text is None:
            raise ValueError("give audio, text, or both")
        inputs = BatchFeature()
        if audio is not None:
            inputs.update(self.feature_extractor(audio, sampling_rate=sampling_rate, return_tensors=return_tensors))
        if text is not None:
            text = _prompts(text)
            inputs.update(self.tokenizer(text, padding=padding, truncation=True, return_tensors=return_tensors))
        return inputs


def _prompts(text) -> list[str]:
    prompts = [text] if isinstance(text, str) else list(text) if hasattr(text, "__iter__") else []
    if not prompts or not all(isinstance(prompt, str) for prompt in prompts):
        raise ValueError(f"text={text!r} must be a prompt, or a list of one or more prompts")
    return prompts


GEmoClapProcessor.register_for_auto_class()
