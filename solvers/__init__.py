"""Solver types, one module each, and the learning-rate policies."""
