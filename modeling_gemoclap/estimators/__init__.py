"""The Python interface: load, predict, embed, fit, evaluate, publish."""
