"""Fields and tags across all encoders: types, and numbers of distinct values."""
