"""Runs: recipe, clips, identity, folder, protocol folds, calibration, and training."""
