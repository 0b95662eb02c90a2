"""Splits by global time, by cold items and by language."""
