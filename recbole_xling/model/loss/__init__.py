"""Losses: mathematics on tensors, one per file."""
