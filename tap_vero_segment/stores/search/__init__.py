"""Finding events by whom and what they are about."""
