"""Datasets as models read them: sequences, item texts, impressions, splits."""
