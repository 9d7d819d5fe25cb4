"""Nets and weights in other formats: ONNX, and weights by name."""
