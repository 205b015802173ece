"""Speaker embeddings of a corpus, and their clusters within each speaker."""
