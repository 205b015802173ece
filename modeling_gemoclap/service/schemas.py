"""The parameters and the answers of the service, from which its OpenAPI schema is made."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from ..inference.segments import MAX_WINDOW, TimelineOptions

DURATION_MS = (0, 60_000)
WITHOUT_ENDS = ("exclusiveMinimum", "exclusiveMaximum")

LABELS = "Labels to choose from: one comma-separated text, or several fields. Default: the emotions of the model."
TEMPLATES = "Prompt template with {}, such as 'a {} voice'; may be repeated. Default: those of the model."

WARNINGS = "What is unusual about the recording, and reasons why the scores may be unreliable."

Labels = Annotated[list[str] | None, Field(description=LABELS)]
Templates = Annotated[list[str] | None, Field(description=TEMPLATES)]

REJECT = "Score below which the label is 'none of these'. Default: never."
RejectBelow = Annotated[
    float | None, Field(description=REJECT, json_schema_extra=dict(zip(WITHOUT_ENDS, (0, 1), strict=True)))
]


def _option(name: str, within: tuple[float, float], description: str, names: tuple = ("minimum", "maximum")):
    """A number of `TimelineOptions`, with its default and its range in the schema."""
    extra = {"default": getattr(TimelineOptions, name), **dict(zip(names, within, strict=True))}
    return Field(None, description=description, json_schema_extra=extra)


class PredictParameters(BaseModel):
    """Options of `/predict`: fields of the form, or parameters of the query."""

    model_config = ConfigDict(extra="forbid")

    labels: Labels = None
    template: Templates = None
    gender: bool = Field(False, description="Whether to predict the gender of the speaker too.")
    reject_below: RejectBelow = None
    top_k: int | None = Field(None, ge=1, description="Number of scores in the answer. Default: all.")


class TimelineParameters(BaseModel):
    """Options of `/timeline`: fields of the form, or parameters of the query. `TimelineOptions` checks them."""

    model_config = ConfigDict(extra="forbid")

    labels: Labels = None
    template: Templates = None
    threshold: float | None = _option(
        "threshold", (0, 1), "Probability of speech above which speech begins.", WITHOUT_ENDS
    )
    neg_threshold: float | None = _option(
        "neg_threshold",
        (0, 1),
        "Probability of speech below which speech ends; at most threshold. Default: 0.15 below it.",
    )
    min_speech_duration_ms: float | None = _option(
        "min_speech_duration_ms", DURATION_MS, "Shorter speech is left out, in milliseconds."
    )
    min_silence_duration_ms: float | None = _option(
        "min_silence_duration_ms", DURATION_MS, "Silence that separates speech, in milliseconds."
    )
    speech_pad_ms: float | None = _option(
        "speech_pad_ms", DURATION_MS, "Margin around speech, in milliseconds; at most min_silence_duration_ms."
    )
    window: float | None = _option(
        "window",
        (0.1, MAX_WINDOW),
        "Length of the windows that are classified, in seconds. Default: the median length of the training clips, "
        "from 1 to 10; 3 if it is unknown.",
    )
    step: float | None = _option(
        "step",
        (0.01, MAX_WINDOW),
        "Distance of the windows, in seconds; at most window. Default: a quarter of window.",
    )
    hysteresis: float | None = _option("hysteresis", (0, 1), "Lead in score that another label needs.")
    vad: Literal["auto", "silero", "level"] | None = Field(
        None,
        description="How speech is found: by Silero VAD, by the level, or auto: Silero VAD where it is installed.",
        json_schema_extra={"default": TimelineOptions.vad},
    )
    reject_below: RejectBelow = None


class PredictResponse(BaseModel):
    """The prediction for a recording."""

    file: str = Field(description="Name of the file as the client gave it; 'recording' for a body without a name.")
    label: str = Field(description="The label with the highest score, or 'none of these': see reject_below.")
    best_label: str = Field(description="The label with the highest score.")
    score: float = Field(description="The highest score.")
    scores: dict[str, float] = Field(description="Scores by label, highest first; with top_k, the highest ones.")
    gender: str | None = Field(description="The gender with the highest score; null if it was not asked for.")
    warnings: list[str] = Field(description=WARNINGS)


class SegmentResponse(BaseModel):
    """A segment of a timeline."""

    start: float = Field(description="Start in seconds.")
    end: float = Field(description="End in seconds.")
    label: str = Field(description="The label, or 'none of these': see reject_below.")
    best_label: str = Field(description="The label.")
    score: float = Field(description="Its score.")
    scores: dict[str, float] = Field(description="Mean scores by label, highest first.")
    speaker: str | None = Field(description="Always null: a request cannot have the turns of speakers.")


class TimelineResponse(BaseModel):
    """The timeline of a recording."""

    file: str = Field(description="Name of the file as the client gave it; 'recording' for a body without a name.")
    segments: list[SegmentResponse] = Field(description="Segments of speech in their order; empty without speech.")
    warnings: list[str] = Field(description=WARNINGS)


class Limits(BaseModel):
    """The limits of the service."""

    max_upload_bytes: int = Field(description="Size of a body in bytes; above it, 413.")
    max_audio_seconds: float = Field(description="Length of a recording of /predict; above it, 413.")
    max_timeline_seconds: float = Field(description="Length of a recording of /timeline; above it, 413.")
    max_concurrent_requests: int = Field(description="Requests with a recording at the same time; above it, 429.")
    max_labels: int = Field(description="Number of labels; above it, 422.")
    max_templates: int = Field(description="Number of templates; above it, 422.")
    max_text_characters: int = Field(description="Length of a label or a template; above it, 422.")
    upload_timeout: float = Field(description="Seconds for an upload, extended with its bytes; above it, 408.")
    min_upload_rate: int = Field(description="Bytes that extend the time for an upload by a second.")
    request_timeout: float = Field(description="Seconds for a prediction; above it, 504.")
    timeline_timeout: float = Field(description="Seconds for a timeline; above it, 504.")
    batch_size: int = Field(description="Recordings that are processed together at most.")
    max_batch_delay_ms: float = Field(description="Milliseconds that a recording waits for others.")


class Queue(BaseModel):
    """What the service is doing."""

    requests: int = Field(description="Requests that are received or processed now.")
    waiting: int = Field(description="Recordings that wait for a batch now.")
    batches: int = Field(description="Batches that were processed since the start.")
    recordings: int = Field(description="Recordings in these batches.")


class HealthResponse(BaseModel):
    """The state of the service."""

    status: str = Field(description="ok")
    model: str = Field(description="Name of the model.")
    revision: str | None = Field(description="Commit, tag or branch that was asked for; null if none was.")
    weights_sha256: str = Field(description="SHA-256 of the weights.")
    version: str = Field(description="Version of this package.")
    device: str = Field(description="Device of the model.")
    labels: list[str] = Field(description="The default labels.")
    queue: Queue
    limits: Limits


class ErrorDetail(BaseModel):
    """What is wrong with a request."""

    model_config = ConfigDict(extra="allow")

    code: str = Field(description="Name of the error for programs.")
    message: str = Field(description="What is wrong and what to do.")
    limit: float | None = Field(None, description="The limit that was exceeded; only with such an error.")
    file: str | None = Field(None, description="The client's name of the file; only with unusable_audio.")
    id: str | None = Field(None, description="The id in the log of the service; only with internal_error.")


class ErrorResponse(BaseModel):
    """The answer to a request that fails."""

    error: ErrorDetail
