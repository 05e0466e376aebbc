"""``vero-collector sample``: a try-out without Vero."""
