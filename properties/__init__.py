"""Default settings of recbole-xling as YAML: overall, per model, per dataset."""
