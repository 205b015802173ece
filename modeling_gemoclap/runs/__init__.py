"""Runs: what trains a model into a folder, and what trains several side by side."""
