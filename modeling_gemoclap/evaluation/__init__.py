"""Evaluation: predictions, the metric, statistics and reports."""
