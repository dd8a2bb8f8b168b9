"""The accessors `.dfit` and `.fit` on xarray objects; importing this module registers them.

Everything heavy is imported by the call, so that `import dfit` costs little more than `import xarray`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from os import PathLike
from typing import Any

import xarray as xr


class FitAccessor:
    """`da.fit(coords, func)`: a fit for each pixel of the dimensions that are kept, or one fit across every chunk."""

    def __init__(self, data: xr.DataArray | xr.Dataset) -> None:
        self._data = data

    def __call__(
        self,
        coords: str | xr.DataArray | Iterable[str | xr.DataArray],
        func: Callable[..., Any],
        reduce_dims: Any = None,
        skipna: bool = True,
        p0: Mapping[str, Any] | Sequence[float] | Callable[..., Any] | str | None = None,
        bounds: Mapping[str, tuple[Any, Any]] | None = None,
        param_names: Sequence[str] | None = None,
        errors: str = "raise",
        kwargs: None = None,
        to: str | PathLike[str] | None = None,
        neighbours: bool = False,
        **options: Any,
    ) -> xr.Dataset:
        """Fit `func` to the data, with the arguments and the variables of xarray's `curvefit`.

        Dimensions that are neither the coordinates' nor in `reduce_dims` are kept: a *map*, with one fit for
        each of their points (a pixel).  Where none is kept it is one fit.

        One fit runs at the call.  A map of chunked data is lazy: its arrays are chunked like the data along the
        kept dimensions, and one task for each chunk makes all of its variables, so compute them together, once:
        ``found.compute()``, ``found.to_zarr(path)``.  Two cases run at the call: data in memory, and chunks
        whose points do not fit into a worker's memory, which takes several passes (a log line and the
        attribute `dfit_plan` say so).

        Parameters
        ----------
        coords : name, DataArray or several of these
            Coordinates in the order of the arguments of `func`.
        func : callable
            ``func(x, a, b)``; with several coordinates one argument each, or all in the first one if
            `param_names`, `p0` or `bounds` name the second as a parameter.
        reduce_dims : ``...`` or one or several dimensions, optional
            Dimensions to fit over besides those of the coordinates; ``...`` is all of them.  The dimension of
            a coordinate along one alone is fitted over, whether or not it is its index.  A coordinate along
            several, such as a time by pixel, says nothing: name those to fit over; dates then need
            `time_origin`.
        skipna : bool
            Whether NaN is a missing point; otherwise it is an error.
        p0, bounds : mapping, optional
            ``{"tau": 5}``, ``{"tau": (0, 50)}``: numbers, or for a map DataArrays over kept dimensions, such
            as an earlier map's coefficients.  A pixel whose p0 is NaN, or outside its bounds, is not fitted.
            ``p0="guess"`` finds a start in the points of each pixel, for a model of `dfit.models`;
            ``p0={"tau": "guess", "c": 1}`` for some parameters.  Or ``p0=function``: ``function(y, x)`` is
            called with the valid points of each pixel, NumPy arrays, times as numbers, and returns all
            parameters in a mapping or sequence; it is slow.  What it returns is moved into the bounds; where
            it raises, the error names the pixel, and with ``errors="ignore"`` the pixel is not fitted.
        param_names : sequence of str, optional
            Where the signature of `func` does not tell.
        errors : {"raise", "ignore"}
            What a fit that does not converge does: raise FitFailed, or give NaN and its message.  A fit
            that the callback or Ctrl-C stopped gives its best point and a warning.  A map raises where it is
            computed, and names the first pixel of the chunk; ignored, a pixel is NaN and its status says why.
            A pixel without any point is NaN and no error.
        kwargs : None
            Refused: options are keywords of this call.
        to : path or URL, optional
            Where a map is computed to at once, one chunk along the kept dimensions (a region) after the
            other; what is returned is opened from there.  Called again after a kill or an error, it goes on
            with the regions that are not there yet; of data, model or options that are not the same it is
            refused.  A pixel that no process has come to yet has status -1.
        neighbours : bool
            Whether a pixel of a map whose fit failed, or whose points the answer of a pixel beside it fits
            better than its own, is fitted again from there, until no cost falls any more.  It looks within
            chunks of the kept dimensions only, so other chunks may give other answers.
        **options
            `sigma`, `where`, `loss`, `fixed`, `constants`, `callback`, `checkpoint`, ... of `dfit.fit`, and how
            one fit runs: `strategy`, `memory_limit` (of one process, bytes or "4 GB"), `memory_fraction`, `plan`.
            Each variable of a Dataset has a folder of its own below the checkpoint's path.  A map takes
            `sigma`, `absolute_sigma`, `where`, `loss`, `f_scale`, `cov` ("hc0", "hc1"), `fixed` (also by pixel),
            `tie`, `constants`, `jac`, `tol`, `ftol`, `xtol`, `gtol`, `max_passes`, `time_unit`, `time_origin`.

        Returns
        -------
        Dataset
            `curvefit_coefficients` (param), whose attributes hold the message and the report,
            `curvefit_covariance` (cov_i, cov_j), `curvefit_stderr` (param) and, as scalars, `curvefit_`
            success, status, npasses, nfev, ndata, nvarys, nfree, chisqr, redchi, aic, bic, rsquared.
            For a Dataset one set for each variable, with its name and "_" in front.  In a map all but nvarys
            have the kept dimensions in front and their coordinates, there is no npasses, and the attributes of
            status, `flag_values` and `flag_meanings`, are its codes in words.

        Raises
        ------
        InputError, ModelError, DataError, WorkerError
            As `dfit.fit`; of a map also for p0, bounds or fixed by pixel with a dimension that is not kept, with
            other labels, or in memory and crossed or outside of each other.
        FitFailed
            If a fit does not converge and `errors` is "raise"; of a lazy map from where it is computed.

        Examples
        --------
        >>> import dfit, numpy as np, jax.numpy as jnp, xarray as xr
        >>> time = np.linspace(0, 10, 1000)
        >>> y = xr.DataArray(5 * np.exp(-time / 2), {"time": time}).chunk(time=100)
        >>> def decay(time, amplitude, tau):
        ...     return amplitude * jnp.exp(-time / tau)
        >>> found = y.fit("time", decay, p0={"amplitude": 1, "tau": 1})
        >>> round(float(found.curvefit_coefficients.sel(param="tau")), 6)
        2.0

        A map, with a start for each pixel:

        >>> image = (y * xr.DataArray([1.0, 2.0, np.nan], {"x": [10, 20, 30]}, "x")).chunk(x=2)
        >>> amplitude = xr.DataArray([1.0, 9.0, 1.0], {"x": [10, 20, 30]}, "x")
        >>> found = image.fit("time", decay, p0={"amplitude": amplitude, "tau": 1})
        >>> found.curvefit_coefficients.chunksizes["x"]
        (2, 1)
        >>> found = found.compute()
        >>> found.curvefit_coefficients.sel(param="amplitude").round(6).values.tolist()
        [5.0, 10.0, nan]
        >>> found.curvefit_status.attrs["flag_meanings"].split()[found.curvefit_status.values[2]]
        'no_data'
        """
        from dfit.face.dataset_fit import fit_dataset

        return fit_dataset(
            self._data,
            coords,
            func,
            reduce_dims=reduce_dims,
            errors=errors,
            kwargs=kwargs,
            to=to,
            options={
                "skipna": skipna,
                "p0": p0,
                "bounds": bounds,
                "param_names": param_names,
                "neighbours": neighbours,
                **options,
            },
        )


for _cls, _register in (
    (xr.DataArray, xr.register_dataarray_accessor),
    (xr.Dataset, xr.register_dataset_accessor),
):
    _register("dfit")(FitAccessor)
    if not hasattr(_cls, "fit"):
        _register("fit")(FitAccessor)
