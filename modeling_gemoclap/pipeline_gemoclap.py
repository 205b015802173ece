"""The pipeline `zero-shot-emotion-recognition`."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

import torch
from transformers import Pipeline
from transformers.utils import logging

from .prompts_gemoclap import check_words, refuse_one_word
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
    """Never called: transformers 4 copies the modules that this file names, not those that these name."""
    from .audio_files_gemoclap import decode
    from .audio_headers_gemoclap import AudioError

    return decode, AudioError


def check_count(name: str, value) -> None:
    """Make sure that an option is a whole number of at least 1, or None.

    Raises:
        ValueError: If it is not.
    """
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if value is not None and not (whole and value >= 1):
        raise ValueError(f"{name}={value!r} must be a whole number of at least 1")


def load_clip(extractor, audio, sampling_rate: int | None = None, on_error: str = "raise"):
    """The features of one recording of speech; with `on_error="return"` a bad one becomes `{"error": message}`.

    Raises:
        AudioError: If it cannot be used and `on_error` is `"raise"`.
    """
    try:
        return extractor.features(extractor.load_speech(audio, sampling_rate))
    except ValueError as error:  # by its name: loaded from a folder, its class may exist twice
        if on_error == "raise" or type(error).__name__ != "AudioError":
            raise
        return {"error": str(error)}


def in_batches(stream: Iterable, batch_size: int, load: Callable, answer: Callable) -> Iterator:
    """Answer a stream in its order, a batch at a time; what could not be loaded stays the error that it became.

    Args:
        stream: Recordings.
        batch_size: How many are loaded and answered together.
        load: From a recording to its features, or to a dict that is its answer.
        answer: From a list of features to as many answers.

    Yields:
        An answer for each recording.
    """
    stream = iter(stream)
    while batch := list(islice(stream, batch_size)):
        items = [load(recording) for recording in batch]
        clips = [item for item in items if not isinstance(item, dict)]
        answers = iter(answer(clips)) if clips else iter(())
        yield from (item if isinstance(item, dict) else next(answers) for item in items)


def ranked(scores: torch.Tensor, labels: list[str]) -> list[dict]:
    """`[{"label", "score"}, ...]`, best first, from scores of shape `(labels,)`.

    Raises:
        ValueError: If a score is not finite.
    """
    if not scores.isfinite().all():
        raise ValueError("the model's scores are not finite: its weights are damaged, or the precision is too low")
    order = scores.argsort(descending=True, stable=True).tolist()
    return [{"label": labels[index], "score": scores[index].item()} for index in order]


class ZeroShotEmotionPipeline(Pipeline):
    """Names the emotion of recordings, zero-shot, by the prompts that a checkpoint brings or by yours.

    The embeddings of a label set are computed once and kept until the text tower or the tokenizer changes; clips run
    through the model in batches.

    Example:
        >>> pipe = pipeline("zero-shot-emotion-recognition", model="gemo-clap", trust_remote_code=True)
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
        check_count("batch_size", self._batch_size)
        self._class_embeddings: dict = {}
        self._embedded_by: tuple | None = None

    def _sanitize_parameters(self, **kwargs) -> tuple[dict, dict, dict]:
        unknown = sorted(set(kwargs) - set(OPTIONS))
        if unknown:
            raise TypeError(f"unknown option {', '.join(unknown)}; known are {', '.join(OPTIONS)} and batch_size")
        if kwargs.get("on_error", "raise") not in ("raise", "return"):
            raise ValueError(f"on_error={kwargs['on_error']!r} is not known; choose 'raise' or 'return'")
        check_count("top_k", kwargs.get("top_k"))
        if kwargs.get("candidate_labels") is not None:
            labels = check_words("candidate_labels", kwargs["candidate_labels"])
            kwargs["candidate_labels"] = refuse_one_word("candidate_labels", labels)
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
            candidate_labels: Emotion words, or one string of them with commas; default: the checkpoint's own.
            hypothesis_template: One template or several, each with `{}`; default: the checkpoint's own.
            batch_size: Clips that go through the model together.
            **kwargs: `sampling_rate` of bare arrays in Hz; `top_k`; `return_gender`; `return_embeddings`;
                `on_error`: `"raise"`, or `"return"` to let a bad item carry its error.

        Returns:
            For one recording `[{"label", "score"}, ...]`, best first; with `return_gender` or `return_embeddings` a
            dict with `emotion` (that list), `gender` (likewise) and `embedding`, `(projection_dim,)`; for a bad item
            under `on_error="return"` `{"error": message}`. A list gives a list, a stream gives a generator.

        Raises:
            AudioError: If a recording cannot be read, is silent or too short, and `on_error` is `"raise"`.
            ValueError: If labels, templates or numbers are unusable, labels share their prompts, or gender is asked
                of a checkpoint without it.
        """
        check_count("batch_size", batch_size)
        asked = {"candidate_labels": candidate_labels, "hypothesis_template": hypothesis_template}
        kwargs |= {name: value for name, value in asked.items() if value is not None}
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
        if (state := self._text_state()) != self._embedded_by:
            self._class_embeddings.clear()
            self._embedded_by = state
        key = tuple(map(tuple, prompts))
        if key not in self._class_embeddings:
            self._tell_unknown_words([prompt for group in prompts for prompt in group])
            if len(self._class_embeddings) >= 16:
                self._class_embeddings.pop(next(iter(self._class_embeddings)))
            self._class_embeddings[key] = self.model.get_class_embeddings(prompts, self.processor.tokenizer)
        return self._class_embeddings[key]

    def _text_state(self) -> tuple:
        """What class embeddings depend on: it differs after the text tower or the tokenizer was changed or replaced.

        One entry of each weight is read, since a change by way of `weight.data` is not counted in its version.
        """
        model, tokenizer = self.model, self.processor.tokenizer
        tensors = [*model.text_model.state_dict().values(), *model.text_projection.state_dict().values()]
        places = [(each.data_ptr(), None if each.is_inference() else each._version) for each in tensors]
        entries = [each.flatten()[each.numel() // 2].double() for each in tensors if each.numel()]
        return model.config.text_pooling, tokenizer, len(tokenizer), places, torch.stack(entries).tolist()

    def _tell_unknown_words(self, prompts: list[str]) -> None:
        if unknown := self.model.config.unknown_words(prompts):
            logger.warning(
                f"the text encoder has never seen {', '.join(map(repr, unknown))}: what it makes of prompts with such "
                f"words is a guess; it knows {', '.join(sorted(self.model.config.known_words))}"
            )

    def _run(self, stream, batch_size: int, options: dict) -> Iterator:
        extractor = self.processor.feature_extractor

        def load(audio):
            return load_clip(extractor, audio, options["sampling_rate"], options["on_error"])

        def answer(clips):
            for embedding in self.forward(extractor.collate(clips))["audio_embeds"]:
                yield self.postprocess(embedding, **options)

        return in_batches(stream, batch_size, load, answer)

    def preprocess(self, audio, sampling_rate: int | None = None, on_error: str = "raise"):
        """Read one recording and make its features; with `on_error="return"` a bad one becomes `{"error": ...}`."""
        return load_clip(self.processor.feature_extractor, audio, sampling_rate, on_error)

    def _forward(self, model_inputs) -> dict:
        return {"audio_embeds": self.model.get_audio_features(**model_inputs)}

    def postprocess(self, embedding: torch.Tensor, candidate_labels: list[str], class_embeddings, **options):
        """Scores of one clip from its embedding `(projection_dim,)`, as `__call__` returns them."""
        ranked = self._rank(embedding, class_embeddings, candidate_labels)[: options["top_k"]]
        if not options["return_gender"] and not options["return_embeddings"]:
            return ranked
        result = {"emotion": ranked}
        if options["return_gender"]:
            result["gender"] = self._rank(embedding, options["gender_embeddings"], self.model.config.genders)
        if options["return_embeddings"]:
            result["embedding"] = embedding.float().numpy()
        return result

    def _rank(self, embedding: torch.Tensor, class_embeddings: torch.Tensor, labels: list[str]) -> list[dict]:
        scale = self.model.audio_scale.detach().float().cpu()
        logits = scale * class_embeddings.float().cpu() @ embedding.float()
        return ranked((logits / (self.model.config.calibration_temperature or 1.0)).softmax(-1), labels)
