"""Item texts: how they are stored, turned into one string, cleaned and identified."""
