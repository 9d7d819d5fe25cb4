"""The layer types, one module each; the registry finds them by name."""
