"""The collector: the HTTP service that catches what Vero pushes, and its commands."""
