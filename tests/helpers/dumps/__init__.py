"""Raw data as the sources publish them, but small: what the tests of the converters read, one file per source."""
