"""What the tap and the targets share on top of the Singer SDK."""
