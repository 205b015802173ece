"""Where recordings come from: folders with a `metadata.csv`, and who speaks in them."""
