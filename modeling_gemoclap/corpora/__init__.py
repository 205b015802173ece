"""Recordings and their labels: corpus folders, Parquet shards, protocols and training records. No models."""
