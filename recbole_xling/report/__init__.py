"""The report: what finished runs found, as figures and as one page."""
