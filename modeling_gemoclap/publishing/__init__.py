"""Publishing a checkpoint: its model card, and its push to the Hub."""
