"""What comes in from outside, each kind in a module of its own, and its way to a track call."""
