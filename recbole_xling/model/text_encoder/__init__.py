"""The text encoder of XLingTwoTower: loading, adapters, tokens, and what is frozen in it."""
