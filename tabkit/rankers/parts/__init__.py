"""What rankers share. No file here is a ranker."""
