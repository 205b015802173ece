"""How a model learns: arguments, clips, collator, sampler, trainer."""
