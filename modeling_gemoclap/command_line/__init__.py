"""What the commands share: options and their ranges, YAML and JSON, writable folders, and how a command fails."""
