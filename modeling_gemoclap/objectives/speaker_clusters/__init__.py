"""Pretraining on the clusters of speaker embeddings within each speaker (Ulgen et al.)."""
