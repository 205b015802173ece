"""Pretrained encoders for `--audio_model` and `--text_model`, from the Hub or from packages of data on PyPI."""
