"""The mathematics of a fit in pure JAX and NumPy: no dask, no files, no clocks."""
