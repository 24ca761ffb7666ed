"""`pipeline config`: checks, shows, describes, makes and renews configurations."""
