"""Pretraining on clusters of speaker embeddings within each speaker (Ulgen et al.)."""
