"""Item texts: how they are stored, cleaned, chosen and turned into one string."""
