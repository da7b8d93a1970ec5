"""Scripts that demonstrate episodes."""
