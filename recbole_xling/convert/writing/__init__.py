"""From a converter's records to the files of a dataset."""
