"""What a model is taught: one file or folder an objective, behind the interface in `base`."""
