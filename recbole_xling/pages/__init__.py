"""What the pages that the package writes have in common: one look, tables, and plots that need no network."""
