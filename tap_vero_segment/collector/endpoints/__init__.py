"""The collector's endpoints, a module each: a function from a request to a response."""
