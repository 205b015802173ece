"""What a model is worth: the metric, predictions, reports."""
