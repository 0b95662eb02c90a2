"""RecBole's trainer with plain checkpoints, exact resume, schedules and hooks of models."""
