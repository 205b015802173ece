"""What a run is: recipe, clips, identity, folder, folds, calibration; and how it is trained."""
