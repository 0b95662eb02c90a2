"""Entry points: train a run, load it, evaluate it on other data, export its encoder."""
