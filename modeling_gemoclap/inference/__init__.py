"""Predictions for recordings: loading of checkpoints, recordings in folders, files of predictions."""
