"""Small data files that ship with recbole-xling; converters write here by default."""
