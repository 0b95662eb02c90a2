"""The text encoder that XLingTwoTower tunes: loading, adapters, tokens, and what is frozen in it."""
