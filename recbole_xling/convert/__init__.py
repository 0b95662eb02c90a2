"""Converters from raw dumps to RecBole's atomic files and item texts."""
