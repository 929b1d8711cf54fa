"""What a run finds, typed: everything above fills it or reads it."""
