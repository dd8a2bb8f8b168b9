"""The doors users come in by: the accessor, curve_fit and the progress they see."""
