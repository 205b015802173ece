"""GEmo-CLAP: contrastive language-audio pretraining with gender-aware targets (arXiv 2306.07848)."""
