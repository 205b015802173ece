"""The training engine: options, clips, samplers, trainer, checks, records and the model card."""
