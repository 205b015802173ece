"""From samples in chunks to segments: reading, speech detection, windows and smoothing, each with its state."""
