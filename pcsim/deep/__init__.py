"""Deep twins and predictive-coding networks on torch. Take what you need from its own file."""
