"""The metric `war_uar`. Its file is self-contained because `evaluate.load` copies only this file."""
