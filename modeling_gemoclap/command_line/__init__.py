"""Code that all commands share: options, ranges, YAML and JSON, checks of folders, and error messages."""
