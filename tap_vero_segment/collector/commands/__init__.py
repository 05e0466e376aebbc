"""What ``vero-collector`` does beside serving: a module for each command."""
