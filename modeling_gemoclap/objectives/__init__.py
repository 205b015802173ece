"""Training objectives: one file or folder for each, behind the interface in `base`."""
