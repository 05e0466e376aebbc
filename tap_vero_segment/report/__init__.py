"""``vero-collector report``: what has arrived in a warehouse, read back from its tables."""
