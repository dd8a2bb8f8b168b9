"""The dask layer: where sums are computed and how they meet. Knows no algorithm."""
