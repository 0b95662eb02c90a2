"""The converters, one file per raw format."""
