"""Full rankings and impressions, measured per user and summed up per slice."""
