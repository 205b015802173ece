"""Smaller copies of trained checkpoints, for shipping: half precision, and fewer word pieces."""
