"""A linear probe: logistic regression on one layer of a frozen, pretrained audio encoder."""
