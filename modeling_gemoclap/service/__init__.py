"""An HTTP service for predictions and timelines: uploads, limits, batches of concurrent requests."""
