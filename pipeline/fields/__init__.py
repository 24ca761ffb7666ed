"""What is known of fields and tags across encoders: types, and distinct tag values."""
