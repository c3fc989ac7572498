"""Deep twins on torch. Nothing is imported here: take what you need from its own file."""
