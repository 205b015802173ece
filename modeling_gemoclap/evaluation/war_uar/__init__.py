"""The metric `war_uar`, self-contained: `evaluate.load` copies its file alone."""
