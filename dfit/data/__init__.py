"""The xarray edge: the only layer that knows dimensions, coordinates, masks and calendars."""
