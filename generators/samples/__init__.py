"""Samples: one JSONL file a category, rendered from its examples."""
