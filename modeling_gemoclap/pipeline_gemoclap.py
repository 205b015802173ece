"""The pipeline `zero-shot-emotion-recognition`."""

from __future__ import annotations

import numbers
from collections.abc import Iterable, Iterator

import torch
from transformers import Pipeline
from transformers.utils import logging

from .batching_gemoclap import padding_limit, process_in_batches
from .prompts_gemoclap import check_words, require_two_words
from .recordings_gemoclap import is_one_recording

logger = logging.get_logger(__name__)

OPTIONS = {
    "candidate_labels": None,
    "hypothesis_template": None,
    "sampling_rate": None,
    "top_k": None,
    "return_gender": False,
    "return_embeddings": False,
    "on_error": "raise",
}


def _repository_files():
    """Never called: transformers 4 copies only the modules that this file imports, not their imports."""
    from .audio_files_gemoclap import decode
    from .audio_headers_gemoclap import AudioError

    return decode, AudioError


def check_count(name: str, value) -> None:
    """Check that an option is a whole number of at least 1, or None.

    Raises:
        ValueError: If it is not.
    """
    is_integer = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if value is not None and not (is_integer and value >= 1):
        raise ValueError(f"{name}={value!r} must be a whole number of at least 1")


def load_clip(extractor, audio, sampling_rate: int | None = None, on_error: str = "raise"):
    """Compute the features of one recording of speech.

    Args:
        extractor: A `GEmoClapFeatureExtractor`.
        audio: A recording; see `read_audio`.
        sampling_rate: Rate of an array in Hz.
        on_error: `"raise"`, or `"return"` to return `{"error": message}` for a recording that cannot be used.

    Raises:
        AudioError: If the recording cannot be used and `on_error` is `"raise"`.
    """
    try:
        return extractor.features(extractor.load_speech(audio, sampling_rate))
    except ValueError as error:  # compare names: if the code comes from a local folder, AudioError may exist twice
        if on_error == "raise" or type(error).__name__ != "AudioError":
            raise
        return {"error": str(error)}


def rank_scores(scores: torch.Tensor, labels: list[str]) -> list[list[dict]]:
    """Sort labels by their scores, for each clip.

    Args:
        scores: `(clips, labels)`.
        labels: The names of the labels.

    Returns:
        For each clip `[{"label", "score"}, ...]`, best first.

    Raises:
        ValueError: If a score is not finite.
    """
    if not scores.isfinite().all():
        raise ValueError("the model's scores are not finite: its weights are damaged, or the precision is too low")
    values, order = scores.sort(dim=-1, descending=True, stable=True)
    return [
        [{"label": labels[index], "score": score} for index, score in zip(indices, row, strict=True)]
        for indices, row in zip(order.tolist(), values.tolist(), strict=True)
    ]


class ZeroShotEmotionPipeline(Pipeline):
    """Classifies the emotion of recordings with the prompts of the checkpoint or of the user.

    Clips are processed in batches. The embeddings of a label set are cached until the text tower or the tokenizer
    changes.

    Example:
        >>> pipe = pipeline("zero-shot-emotion-recognition", model="runs/sl", trust_remote_code=True)
        >>> pipe("clip.wav", top_k=1)
        [{'label': 'angry', 'score': 0.93}]
    """

    method = "zero-shot by the checkpoint's prompts"
    _load_processor = True
    _load_tokenizer = False
    _load_feature_extractor = False
    _load_image_processor = False

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if self.processor is None:
            raise ValueError("the pipeline needs the checkpoint's processor: pass processor=GEmoClapProcessor(...)")
        self.processor.feature_extractor.check_window(self.model.config.audio_config)
        check_count("batch_size", self._batch_size)
        self._class_embeddings: dict = {}
        self._embedded_by: tuple | None = None

    def _sanitize_parameters(self, **kwargs) -> tuple[dict, dict, dict]:
        unknown = sorted(set(kwargs) - set(OPTIONS))
        if unknown:
            raise TypeError(f"unknown option {', '.join(unknown)}; choose from {', '.join(OPTIONS)} and batch_size")
        if kwargs.get("on_error", "raise") not in ("raise", "return"):
            raise ValueError(f"on_error={kwargs['on_error']!r} is unknown; choose 'raise' or 'return'")
        check_count("top_k", kwargs.get("top_k"))
        if kwargs.get("candidate_labels") is not None:
            labels = check_words("candidate_labels", kwargs["candidate_labels"])
            kwargs["candidate_labels"] = require_two_words("candidate_labels", labels)
        return {}, {}, kwargs

    def __call__(
        self,
        audio,
        candidate_labels: Iterable[str] | str | None = None,
        hypothesis_template: str | list[str] | None = None,
        batch_size: int | None = None,
        **kwargs,
    ):
        """Classify one recording, a list of them, or a stream.

        Args:
            audio: A path, bytes, a `(time,)` or `(channels, time)` array, a dict with `array`, `bytes` or `path` and
                `sampling_rate`; or a list, a dataset or a generator of these.
            candidate_labels: Emotion words, or one comma-separated string; default: the emotions of the checkpoint.
            hypothesis_template: One template or several, each with `{}`; default: those of the checkpoint.
            batch_size: Number of clips that the model processes together.
            **kwargs: `sampling_rate` of arrays in Hz; `top_k`; `return_gender`; `return_embeddings`; `on_error`:
                `"raise"`, or `"return"` to return the error of a recording that cannot be used as its result.

        Returns:
            For one recording, `[{"label", "score"}, ...]`, best first. With `return_gender` or `return_embeddings`, a
            dict with `emotion` and `gender`, both such lists, and `embedding`, `(projection_dim,)`. With
            `on_error="return"`, `{"error": message}` for a recording that cannot be used. A list of recordings returns
            a list, a stream returns a generator.

        Raises:
            AudioError: If a recording cannot be read, is silent or too short, and `on_error` is `"raise"`.
            ValueError: If labels, templates or numbers are invalid, if labels share their prompts, or if gender is
                requested and the checkpoint was trained without it.
        """
        check_count("batch_size", batch_size)
        arguments = {"candidate_labels": candidate_labels, "hypothesis_template": hypothesis_template}
        kwargs |= {name: value for name, value in arguments.items() if value is not None}
        options = {**OPTIONS, **self._postprocess_params, **self._sanitize_parameters(**kwargs)[2]}
        prompts = self.model.config.class_prompts(options["candidate_labels"], options["hypothesis_template"])
        options["candidate_labels"] = options["candidate_labels"] or self.model.config.emotions
        options["class_embeddings"] = self._embed_classes(prompts)
        if options["return_gender"]:
            options["gender_embeddings"] = self._embed_classes(self.model.config.gender_class_prompts())
        batch_size = batch_size or self._batch_size or 8
        if is_one_recording(audio):
            return next(self._run([audio], 1, options))
        results = self._run(audio, batch_size, options)
        return list(results) if isinstance(audio, (list, tuple)) else results

    def _embed_classes(self, prompts: list[list[str]]) -> torch.Tensor:
        """The class embeddings `(classes, projection_dim)` of one list of prompts for each class, from a cache."""
        if (state := self._text_state()) != self._embedded_by:
            self._class_embeddings.clear()
            self._embedded_by = state
        key = tuple(map(tuple, prompts))
        if key not in self._class_embeddings:
            self._warn_of_unknown_words([prompt for class_prompts in prompts for prompt in class_prompts])
            if len(self._class_embeddings) >= 16:
                self._class_embeddings.pop(next(iter(self._class_embeddings)))
            self._class_embeddings[key] = self.model.get_class_embeddings(prompts, self.processor.tokenizer)
        return self._class_embeddings[key]

    def _text_state(self) -> tuple:
        """The key of the cache: it changes if the text tower or the tokenizer is changed or replaced.

        It includes one entry of each weight, since assignments to `weight.data` do not change the weight's version.
        """
        model, tokenizer = self.model, self.processor.tokenizer
        tensors = [*model.text_model.state_dict().values(), *model.text_projection.state_dict().values()]
        versions = [(tensor.data_ptr(), None if tensor.is_inference() else tensor._version) for tensor in tensors]
        entries = [tensor.flatten()[tensor.numel() // 2].double() for tensor in tensors if tensor.numel()]
        return model.config.text_pooling, tokenizer, len(tokenizer), versions, torch.stack(entries).tolist()

    def _warn_of_unknown_words(self, prompts: list[str]) -> None:
        if unknown := self.model.config.unknown_words(prompts):
            logger.warning(
                f"the text encoder was not trained on {', '.join(map(repr, unknown)):.500}: results for prompts with "
                f"these words are unreliable; its words are {', '.join(sorted(self.model.config.known_words))}"
            )

    def _run(self, stream, batch_size: int, options: dict) -> Iterator:
        extractor = self.processor.feature_extractor

        def load(audio):
            return load_clip(extractor, audio, options["sampling_rate"], options["on_error"])

        def predict(clips):
            return self.postprocess(self.forward(extractor.collate(clips))["audio_embeds"], **options)

        limit = padding_limit(self.model, extractor)
        return process_in_batches(stream, batch_size, load, predict, limit)

    def preprocess(self, audio, sampling_rate: int | None = None, on_error: str = "raise"):
        """Compute the features of one recording; see `load_clip`."""
        return load_clip(self.processor.feature_extractor, audio, sampling_rate, on_error)

    def _forward(self, model_inputs) -> dict:
        return {"audio_embeds": self.model.get_audio_features(**model_inputs)}

    def get_inference_context(self):
        """The context of the model's forward pass: no tensor that it returns leaves the pipeline."""
        return torch.inference_mode

    def postprocess(self, embeddings: torch.Tensor, candidate_labels: list[str], class_embeddings, **options) -> list:
        """Compute the results of clips, as in `__call__`, from their embeddings `(clips, projection_dim)`."""
        ranked = self._rank(embeddings, class_embeddings, candidate_labels)
        results = emotions = [emotions[: options["top_k"]] for emotions in ranked]
        if options["return_gender"] or options["return_embeddings"]:
            results = [{"emotion": emotion} for emotion in emotions]
        if options["return_gender"]:
            genders = self._rank(embeddings, options["gender_embeddings"], self.model.config.genders)
            results = [result | {"gender": gender} for result, gender in zip(results, genders, strict=True)]
        if options["return_embeddings"]:
            rows = embeddings.float().numpy()
            results = [result | {"embedding": row} for result, row in zip(results, rows, strict=True)]
        return results

    def _rank(self, embeddings: torch.Tensor, class_embeddings: torch.Tensor, labels: list[str]) -> list[list[dict]]:
        if any((vectors.float().norm(dim=-1) < 0.9).any() for vectors in (embeddings, class_embeddings)):
            # They overflowed, and all scores would be equal.
            raise ValueError("embeddings are not of unit length: the weights are damaged, or the precision is too low")
        scale = self.model.audio_scale.detach().float().cpu()
        if not scale > 0:  # all scores would be equal
            raise ValueError(f"the scale of the model's logits is {scale.item()}: its weights are damaged")
        logits = scale * embeddings.float() @ class_embeddings.float().cpu().T
        return rank_scores((logits / (self.model.config.calibration_temperature or 1.0)).softmax(-1), labels)
