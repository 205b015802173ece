"""The work behind the service: decoding in a pool of threads, the model in one thread."""

from __future__ import annotations

import asyncio
import copy
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from ..audio_headers_gemoclap import AudioError
from ..inference.classifier import AudioClassifier
from ..inference.predictions import Prediction, PredictionOptions, extractor_of, predict, why_only_ranks
from ..inference.remarks import collect_remarks
from ..inference.timeline import TimelineOptions, timeline_steps
from ..pipeline_gemoclap import ZeroShotEmotionPipeline
from ..prompts_gemoclap import CONTROL, require_two_words
from ..recordings_gemoclap import name_of
from ..safety_gemoclap import tensors_sha256
from .batching import Batcher
from .errors import ServiceError
from .lengths import check_header, check_length, too_long
from .limits import MAX_TEXT, ServiceLimits
from .schemas import PredictParameters, PredictResponse, SegmentResponse, TimelineParameters, TimelineResponse
from .uploads import Upload

Pipe = ZeroShotEmotionPipeline | AudioClassifier
PATH = re.compile(r"(?<![\w.])(?:[A-Za-z]:)?(?:[/\\][\w.+-]+)+[/\\][\w.+-]+")  # an absolute path within a message


@dataclass(frozen=True)
class ModelIdentity:
    """Which model the service uses.

    Args:
        name: A name on the Hub or of an included checkpoint; of a folder, its last part.
        revision: Commit, tag or branch that was asked for.
        weights_sha256: SHA-256 of the weights.
    """

    name: str
    revision: str | None
    weights_sha256: str


def identify(pipe: Pipe, model: str, revision: str | None = None) -> ModelIdentity:
    """Identify a model.

    Args:
        pipe: The model, from `load_pipeline`.
        model: Its name or folder.
        revision: Commit, tag or branch.
    """
    name = Path(model).resolve().name if Path(model).is_dir() else model
    return ModelIdentity(name, revision, tensors_sha256(pipe.model.state_dict().values()))


class _Loaded:
    """Takes the place of a feature extractor for clips whose features are computed already."""

    def __init__(self, extractor):
        self.collate, self.feature_type = extractor.collate, extractor.feature_type

    def load_speech(self, audio: np.ndarray, sampling_rate: int | None = None) -> np.ndarray:
        return audio

    def features(self, wave: np.ndarray) -> np.ndarray:
        return wave


def _with_extractor(pipe: Pipe, extractor: _Loaded) -> Pipe:
    """The same model with another feature extractor."""
    pipe = copy.copy(pipe)
    if isinstance(pipe, AudioClassifier):
        pipe.feature_extractor = extractor
    else:
        pipe.processor = SimpleNamespace(feature_extractor=extractor, tokenizer=pipe.processor.tokenizer)
    return pipe


class Engine:
    """Predictions and timelines of uploads.

    Args:
        pipe: The model, from `load_pipeline`.
        limits: The limits.

    Attributes:
        requests: Number of requests that are received or processed now.
        folder: Temporary folder for uploads, while the engine runs.
    """

    def __init__(self, pipe: Pipe, limits: ServiceLimits):
        self.pipe, self.limits = pipe, limits
        self.extractor = extractor_of(pipe)
        self.requests = 0
        self.folder: Path | None = None
        self._of_features = _with_extractor(pipe, _Loaded(self.extractor))

    async def start(self) -> None:
        """Start the threads and create the folder."""
        rate = self.extractor.sampling_rate
        if self.extractor.feature_type == "log_mel":
            rate = 1 / self.extractor.hop_seconds
        self.folder = Path(tempfile.mkdtemp(prefix="gemoclap-serve-"))
        self._decoders = ThreadPoolExecutor(min(4, os.cpu_count() or 1), "decoder")
        self._model = ThreadPoolExecutor(1, "model")
        self._loaded = asyncio.Semaphore(2 * self.limits.batch_size)  # decoded clips that wait for a batch
        self.batcher = Batcher(self._predict, self._model, self.limits, int(self.limits.max_audio_seconds * rate))
        self._batches = asyncio.create_task(self.batcher.run())

    async def stop(self) -> None:
        """Stop the threads and delete the folder."""
        self._batches.cancel()
        await asyncio.gather(self._batches, return_exceptions=True)
        for executor in (self._decoders, self._model):
            await asyncio.to_thread(executor.shutdown, cancel_futures=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    @contextmanager
    def admit(self) -> Iterator[None]:
        """Count a request while it is received and processed.

        Raises:
            ServiceError: 429 if there are too many.
        """
        most = self.limits.max_concurrent_requests
        if self.requests >= most:
            message = f"the service has {most} requests, its limit: try again"
            raise ServiceError(429, "too_many_requests", message, limit=most)
        self.requests += 1
        try:
            yield
        finally:
            self.requests -= 1

    async def predict(self, upload: Upload, parameters: PredictParameters) -> PredictResponse:
        """Predict the emotion of an upload.

        Raises:
            ServiceError: If options are invalid or the recording cannot be used (422) or is too long (413).
        """
        options = self._options(parameters)
        async with self._loaded:
            with _errors_of(upload):
                clip, remarks = await self._run(self._decoders, self._load, upload.path)
            prediction: Prediction = await self.batcher.submit(options, clip)
        answer = asdict(prediction) | {"scores": dict([*prediction.scores.items()][: parameters.top_k])}
        warnings = [*_of_client(upload, remarks), *self._warnings(options)]
        return PredictResponse(file=upload.name, warnings=warnings, **answer)

    async def timeline(self, upload: Upload, parameters: TimelineParameters) -> TimelineResponse:
        """Compute the timeline of an upload in short steps, so that batches of predictions run in between.

        Raises:
            ServiceError: If options are invalid or the recording cannot be used (422) or is too long (413), or if a
                part is not installed (501).
        """
        words = self._options(parameters)
        given = parameters.model_dump(exclude_none=True, exclude={"labels", "template"})
        limit, heard, answers, remarks = self.limits.max_timeline_seconds, 0.0, [], []

        def hook(wave: np.ndarray, recording) -> None:
            nonlocal heard
            heard += len(wave) / self.extractor.sampling_rate

        def next_segments() -> list | None:
            with collect_remarks(name_of(upload.path), remarks):
                return next(steps, None)

        await self._run(self._decoders, check_header, upload.path, limit)
        with _errors_of(upload):
            with _invalid_options():
                options = TimelineOptions(
                    labels=words.labels, templates=words.templates, batch_size=self.limits.batch_size, **given
                )
                steps = await self._run(self._model, timeline_steps, self.pipe, str(upload.path), options, hook)
            try:
                while (segments := await self._run(self._model, next_segments)) is not None:
                    if heard > limit:
                        raise too_long(limit)
                    answers += [SegmentResponse(**asdict(segment)) for segment in segments]
            finally:
                self._model.submit(steps.close)  # after the step that runs now
        warnings = [*_of_client(upload, remarks), *self._warnings(words)]
        return TimelineResponse(file=upload.name, segments=answers, warnings=warnings)

    def _options(self, parameters: PredictParameters | TimelineParameters) -> PredictionOptions:
        """Check labels, templates and the threshold; the options of the prediction.

        Raises:
            ServiceError: 422 if they are invalid.
        """
        labels, templates, gender = parameters.labels, parameters.template, getattr(parameters, "gender", False)
        limits = {"labels": (labels, self.limits.max_labels), "template": (templates, self.limits.max_templates)}
        for name, (texts, most) in limits.items():
            if texts is not None and len(texts) > most:
                message = f"{name}: {len(texts)} given, and {most} is the limit: give fewer"
                raise ServiceError(422, "invalid_options", message, limit=most)
            for text in texts or []:
                if len(text) > MAX_TEXT or CONTROL.search(text):
                    message = f"{name}: give text of at most {MAX_TEXT} characters without control characters"
                    raise ServiceError(422, "invalid_options", message, limit=MAX_TEXT)
        labels, templates = (None if texts is None else tuple(texts) for texts in (labels, templates))
        with _invalid_options():
            options = PredictionOptions(labels, templates, gender, self.limits.batch_size, parameters.reject_below)
            if isinstance(self.pipe, AudioClassifier):
                list(predict(self.pipe, [], options))
                return options
            words = options.labels_of(self.pipe)
            if labels is not None:
                require_two_words("labels", words)
            self.pipe.model.config.class_prompts(labels, templates)
            if gender:
                self.pipe.model.config.gender_class_prompts()
        return options

    def _warnings(self, options: PredictionOptions) -> list[str]:
        config, warnings = self.pipe.model.config, []
        if options.reject_below is not None and (reason := why_only_ranks(self.pipe, options)):
            warnings.append(f"{reason}: scores only rank the labels, and reject_below is no probability")
        if isinstance(self.pipe, AudioClassifier):
            return warnings
        prompts = [prompt for group in config.class_prompts(options.labels, options.templates) for prompt in group]
        unknown = ", ".join(map(repr, config.unknown_words(prompts)))
        if unknown:
            warnings.append(f"the text encoder was not trained on {unknown}: scores are unreliable")
        return warnings

    async def _run(self, executor: ThreadPoolExecutor, function: Callable, *arguments):
        return await asyncio.get_running_loop().run_in_executor(executor, function, *arguments)

    def _load(self, path: Path) -> tuple[np.ndarray, list[str]]:
        """The features of a recording, and the warnings about it."""
        remarks: list[str] = []
        with collect_remarks(name_of(path), remarks):
            check_length(path, self.limits.max_audio_seconds)
            return self.extractor.features(self.extractor.load_speech(str(path))), remarks

    def _predict(self, options: PredictionOptions, clips: list[np.ndarray]) -> list[Prediction]:
        return list(predict(self._of_features, clips, options))


@contextmanager
def _invalid_options() -> Iterator[None]:
    """Convert the `ValueError` of an invalid option to a `ServiceError`, with the service's names of the options."""
    try:
        yield
    except ValueError as error:
        message = str(error)
        for name, option in {"candidate_labels": "labels", "hypothesis_template": "template"}.items():
            message = re.sub(rf"\A{name}", option, message)
        raise ServiceError(422, "invalid_options", message) from None


def _of_client(upload: Upload, messages: list[str]) -> list[str]:
    """Messages about a recording, with the client's name of the file and without paths."""
    return [f"{upload.name}: {PATH.sub('...', message)}" for message in messages]


@contextmanager
def _errors_of(upload: Upload) -> Iterator[None]:
    """Convert the errors of a recording to a `ServiceError` with the client's name of the file, and without paths."""
    try:
        yield
    except AudioError as error:
        [message] = _of_client(upload, [str(error).removeprefix(f"{name_of(upload.path)}: ")])
        raise ServiceError(422, "unusable_audio", message, file=upload.name) from None
    except ImportError as error:
        raise ServiceError(501, "not_available", PATH.sub("...", str(error))) from error
