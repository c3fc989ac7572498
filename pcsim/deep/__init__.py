"""Deep models on torch: the only rooms besides `pcsim.control` that import it."""
