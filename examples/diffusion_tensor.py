"""Fit the diffusion tensor in every voxel of a piece of brain: where is fluid, and where are fibres?

1,000 voxels of diffusion-weighted MRI with 65 weightings each, chunked along all four dimensions; each voxel
has its own start, and the map is lazy until it is computed.

    python examples/diffusion_tensor.py
"""

from __future__ import annotations

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import xarray as xr
from scipy.optimize import least_squares

import dfit  # noqa: F401, registers the accessor

DATA = Path(__file__).parent / "data" / "dwi_small_64D.nc"
COORDS = ("b", "gx", "gy", "gz")
TENSOR = (("Dxx", "Dxy", "Dxz"), ("Dxy", "Dyy", "Dyz"), ("Dxz", "Dyz", "Dzz"))
START = {"Dxx": 1.0, "Dyy": 1.0, "Dzz": 1.0, "Dxy": 0.0, "Dxz": 0.0, "Dyz": 0.0}
SPACE = ("x", "y", "z")


def attenuated(b, gx, gy, gz, S0, Dxx, Dyy, Dzz, Dxy, Dxz, Dyz):
    """Signal at weighting b (ms/um^2) along the unit vector g, for the tensor D (um^2/ms)."""
    along_axes = Dxx * gx**2 + Dyy * gy**2 + Dzz * gz**2
    between = 2 * (Dxy * gx * gy + Dxz * gx * gz + Dyz * gy * gz)
    return S0 * jnp.exp(-b * (along_axes + between))


def voxels() -> xr.DataArray:
    """The data, lazy, in the chunks of the file: two along the weightings, which are fitted over."""
    data = xr.open_dataset(DATA, chunks={})
    directions = data.bvec.fillna(0)  # without a weighting there is none
    weighting = {"b": data.bval / 1000, **dict(zip(COORDS[1:], directions, strict=True))}
    return data.signal.drop_vars("bval").assign_coords(weighting)


def fit_tensors(signal: xr.DataArray) -> xr.Dataset:
    """The fits of all voxels, lazy; S0 starts at the voxel's own signal without a weighting."""
    unweighted = signal.isel(direction=0, drop=True)
    return signal.fit(COORDS, attenuated, p0={"S0": unweighted, **START}, errors="ignore")


def facts(fits: xr.Dataset) -> xr.Dataset:
    """What the tensors mean: mean diffusivity with its standard error, anisotropy, direction of the fibres.

    Anisotropy is 0 where water moves alike in all directions and 1 where along a line (Basser & Pierpaoli 1996).
    A voxel is significant if its tensor is positive and the mean three times its standard error.
    """
    place = [[list(START).index(name) for name in row] for row in TENSOR]
    tensors = fits.curvefit_coefficients.sel(param=list(START)).values[..., place]
    values, vectors = np.linalg.eigh(np.nan_to_num(tensors))
    mean = values.mean(axis=-1)
    away = 1.5 * ((values - mean[..., None]) ** 2).sum(axis=-1)
    diagonal = ["Dxx", "Dyy", "Dzz"]
    trace_variance = fits.curvefit_covariance.sel(cov_i=diagonal, cov_j=diagonal).sum(("cov_i", "cov_j"))
    stderr = np.sqrt(trace_variance.values) / 3
    significant = fits.curvefit_success.values & (values[..., 0] > 0) & (mean > 3 * stderr)
    return xr.Dataset(
        {
            "mean": (SPACE, mean),
            "stderr": (SPACE, stderr),
            "anisotropy": (SPACE, np.sqrt(away / (values**2).sum(axis=-1))),
            "diffusivities": ((*SPACE, "axis"), values),
            "direction": ((*SPACE, "component"), vectors[..., -1]),
            "significant": (SPACE, significant),
        }
    )


def fluid(found: xr.Dataset) -> xr.DataArray:
    """Voxels whose water moves about as freely as water in a glass."""
    return found.significant & (found["mean"] > 2.5)


def tract(found: xr.Dataset) -> xr.DataArray:
    """Voxels of tissue whose water moves along one direction."""
    return found.significant & (found["mean"] < 1.2) & (found.anisotropy > 0.7)


def turn(found: xr.Dataset, among: xr.DataArray) -> float:
    """Median angle (degrees) between the directions of neighbours; 60 if they have nothing in common."""
    angles = []
    for dim in SPACE:
        here, there = {dim: slice(None, -1)}, {dim: slice(1, None)}
        cosine = (found.direction.isel(here) * found.direction.isel(there)).sum("component")
        both = among.isel(here) & among.isel(there)
        angles.append(np.degrees(np.arccos(np.minimum(abs(cosine.values[both.values]), 1))))
    return float(np.median(np.concatenate(angles)))


def by_scipy(signal: xr.DataArray) -> tuple[np.ndarray, np.ndarray]:
    """The same fits one by one, at tight tolerances with exact derivatives: parameters and chi-square."""
    b, gx, gy, gz = (signal[name].values for name in COORDS)
    weights = b[:, None] * np.stack([gx**2, gy**2, gz**2, 2 * gx * gy, 2 * gx * gz, 2 * gy * gz], axis=1)
    rows, sums = [], []
    for y in signal.values.reshape(-1, b.size).astype(float):

        def decay(theta):
            return np.exp(-weights @ theta[1:])

        def residual(theta, y=y, decay=decay):
            return theta[0] * decay(theta) - y

        def derivative(theta, decay=decay):
            e = decay(theta)[:, None]
            return np.concatenate([e, -theta[0] * e * weights], axis=1)

        start = [y[0], *START.values()]
        best = least_squares(residual, start, derivative, method="lm", xtol=1e-15, ftol=1e-15, gtol=1e-15)
        rows.append(best.x)
        sums.append(2 * best.cost)
    return np.array(rows), np.array(sums)


def compare(fits: xr.Dataset, signal: xr.DataArray) -> float:
    """Print the voxel furthest from SciPy and return its distance in standard errors."""
    rows, sums = by_scipy(signal)
    mine = fits.curvefit_coefficients.values
    away = (abs(mine - rows.reshape(mine.shape)) / fits.curvefit_stderr.values).max(axis=-1)
    worst = np.unravel_index(int(np.argmax(away)), away.shape)
    excess = max((fits.curvefit_chisqr.values.ravel() / sums - 1).max(), 0)
    place = ", ".join(f"{dim}={index}" for dim, index in zip(SPACE, worst, strict=True))
    print(f"worst voxel ({place}): {away[worst]:.0e} standard errors from SciPy")
    print(f"chi-square above SciPy's by a share of {excess:.0e} at most")
    return float(away[worst])


def main() -> None:
    signal = voxels()
    fits = fit_tensors(signal).compute()  # all variables together: the data are fitted once
    codes, counts = np.unique(fits.curvefit_status, return_counts=True)
    meanings = fits.curvefit_status.attrs["flag_meanings"].split()
    print(", ".join(f"{n} voxels {meanings[code]}" for code, n in zip(codes, counts, strict=True)))
    compare(fits, signal.compute())
    found = facts(fits)
    water, fibres = fluid(found), tract(found)
    across, between, along = found.diffusivities.where(fibres).median(SPACE).values
    print(f"{int(water.sum())} voxels of fluid: {float(found['mean'].where(water).median()):.2f} um^2/ms")
    print(
        f"{int(fibres.sum())} voxels of fibres: {along:.2f} um^2/ms along, {across:.2f} and {between:.2f} across"
    )
    print(f"neighbours among them differ by {turn(found, fibres):.1f} degrees (median; by chance 60)")


if __name__ == "__main__":
    main()
