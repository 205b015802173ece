"""The limits of the service."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

from ..command_line.ranges import COUNT, NOT_NEGATIVE, POSITIVE, check_values

BYTES_PER_MB = 1_000_000
MAX_TEXT = 200  # characters of a label or a template
MAX_FIELDS = 200  # options of a request, which may be repeated
MAX_FIELD_BYTES = 20_000  # of all options and headers of a form
MIN_UPLOAD_RATE = 16_384  # bytes per second, by which the time for an upload is extended
LINGER_SECONDS = 2.0  # for which the rest of a refused upload is discarded, so that its client reads the answer


def _limit(default: float, within):
    return field(default=default, metadata={"within": within})


@dataclass(frozen=True)
class ServiceLimits:
    """What the service accepts, and how it forms batches.

    Args:
        batch_size: Recordings that are processed together at most.
        max_batch_delay_ms: Milliseconds that a recording waits for others to fill its batch.
        max_upload_mb: Size of the body of a request, in MB (10^6 bytes).
        max_audio_seconds: Length of a recording of `/predict`, in seconds. A batch with its padding is not longer
            in all, so that its memory is about that of the longest recording.
        max_timeline_seconds: Length of a recording of `/timeline`, in seconds.
        max_concurrent_requests: Requests with a recording that are received or processed at the same time.
        max_labels: Number of labels in a request.
        max_templates: Number of templates in a request.
        upload_timeout: Seconds for an upload, plus one for every 16 KiB that arrive.
        request_timeout: Seconds for a prediction after the upload.
        timeline_timeout: Seconds for a timeline after the upload.
        shutdown_timeout: Seconds for which requests are finished after SIGTERM.

    Raises:
        ValueError: If a value is out of range. The message begins with the name of the field.
    """

    batch_size: int = _limit(16, COUNT)
    max_batch_delay_ms: float = _limit(5.0, NOT_NEGATIVE)
    max_upload_mb: float = _limit(128.0, POSITIVE)
    max_audio_seconds: float = _limit(120.0, POSITIVE)
    max_timeline_seconds: float = _limit(3600.0, POSITIVE)
    max_concurrent_requests: int = _limit(128, COUNT)
    max_labels: int = _limit(50, COUNT)
    max_templates: int = _limit(5, COUNT)
    upload_timeout: float = _limit(20.0, POSITIVE)
    request_timeout: float = _limit(60.0, POSITIVE)
    timeline_timeout: float = _limit(600.0, POSITIVE)
    shutdown_timeout: float = _limit(30.0, POSITIVE)

    def __post_init__(self):
        check_values(ServiceLimits, **asdict(self))

    @property
    def max_upload_bytes(self) -> int:
        """Size of the body of a request, in bytes."""
        return int(self.max_upload_mb * BYTES_PER_MB)
