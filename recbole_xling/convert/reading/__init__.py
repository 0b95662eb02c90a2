"""Reading raw dumps in blocks, row by row where something is wrong, with every bad row named."""
