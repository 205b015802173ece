"""The parameters and the answers of the service, from which its OpenAPI schema is made."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

LABELS = "Labels to choose from: one comma-separated text, or several fields. Default: the emotions of the model."
TEMPLATES = "Prompt template with {}, such as 'a {} voice'; may be repeated. Default: those of the model."

Labels = Annotated[list[str] | None, Field(description=LABELS)]
Templates = Annotated[list[str] | None, Field(description=TEMPLATES)]

REJECT = "Score, between 0 and 1, below which the label is 'none of these'. Default: never."
RejectBelow = Annotated[float | None, Field(description=REJECT)]


class PredictParameters(BaseModel):
    """Options of `/predict`: fields of the form, or parameters of the query."""

    model_config = ConfigDict(extra="forbid")

    labels: Labels = None
    template: Templates = None
    gender: bool = Field(False, description="Whether to predict the gender of the speaker too.")
    reject_below: RejectBelow = None
    top_k: int | None = Field(None, ge=1, description="Number of scores in the answer. Default: all.")


class TimelineParameters(BaseModel):
    """Options of `/timeline`: fields of the form, or parameters of the query. The defaults: TimelineOptions."""

    model_config = ConfigDict(extra="forbid")

    labels: Labels = None
    template: Templates = None
    threshold: float | None = Field(None, description="Probability of speech above which speech begins.")
    neg_threshold: float | None = Field(None, description="Probability of speech below which speech ends.")
    min_speech_duration_ms: float | None = Field(None, description="Shorter speech is left out, in milliseconds.")
    min_silence_duration_ms: float | None = Field(None, description="Silence that separates speech, in milliseconds.")
    speech_pad_ms: float | None = Field(None, description="Margin around speech, in milliseconds.")
    window: float | None = Field(None, description="Length of the windows that are classified, in seconds.")
    step: float | None = Field(None, description="Distance of the windows, in seconds.")
    hysteresis: float | None = Field(None, description="Lead in score that another label needs to replace a label.")
    vad: Literal["auto", "silero", "level"] | None = Field(None, description="How speech is found.")
    reject_below: RejectBelow = None


class PredictResponse(BaseModel):
    """The prediction for a recording."""

    file: str = Field(description="Name of the file as the client gave it; 'recording' for a body without a name.")
    label: str = Field(description="The label with the highest score, or 'none of these': see reject_below.")
    best_label: str = Field(description="The label with the highest score.")
    score: float = Field(description="The highest score.")
    scores: dict[str, float] = Field(description="Scores by label, highest first; with top_k, the highest ones.")
    gender: str | None = Field(description="The gender with the highest score; null if it was not asked for.")
    warnings: list[str] = Field(description="Reasons why the scores may be unreliable.")


class SegmentResponse(BaseModel):
    """A segment of a timeline."""

    start: float = Field(description="Start in seconds.")
    end: float = Field(description="End in seconds.")
    label: str = Field(description="The label, or 'none of these': see reject_below.")
    best_label: str = Field(description="The label.")
    score: float = Field(description="Its score.")
    scores: dict[str, float] = Field(description="Mean scores by label, highest first.")
    speaker: str | None = Field(description="The speaker; null if unknown.")


class TimelineResponse(BaseModel):
    """The timeline of a recording."""

    file: str = Field(description="Name of the file as the client gave it; 'recording' for a body without a name.")
    segments: list[SegmentResponse] = Field(description="Segments of speech in their order; empty without speech.")
    warnings: list[str] = Field(description="Reasons why the scores may be unreliable.")


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


class ErrorResponse(BaseModel):
    """The answer to a request that fails."""

    error: ErrorDetail
