"""Singer targets, each in a room of its own."""
