"""Numbers that are not finite, or not those of the pass before, are named; none of them goes by in silence."""

from __future__ import annotations

import pickle
import warnings

import dask.array as da
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

import dfit
from dfit.core.state import State, start
from dfit.core.sums import Sums
from dfit.core.validation import bad_step, bad_total, is_finite
from dfit.data.domain import build_domain
from dfit.model import Model
from dfit.parameters import Parameters
from dfit.prepare import Prepared, prepare
from dfit.reduce.checks import NotFiniteAtStart
from dfit.settings import Settings

POINTS = 20_000
BOX = np.array([-np.inf, 0.0]), np.array([np.inf, 9.0])


def decay(t, a, tau):
    return a * jnp.exp(-t / tau)


def shifted_log(t, a, b):
    return a * jnp.log(t - b)


def decays(unit: float = 1.0, **at: float) -> xr.DataArray:
    """A decay with noise over t and groups of points; ``at`` are values put at an index."""
    t = np.linspace(0, 10, POINTS)
    y = unit * (3 * np.exp(-t / 2) + 0.05 * np.random.default_rng(4).standard_normal(POINTS))
    y = xr.DataArray(y, {"t": ("i", t), "group": ("i", np.arange(POINTS) // 1000)}, "i", "y")
    for index, value in at.items():
        y[int(index.strip("_"))] = value
    return y


def fitted(y: xr.DataArray, model=decay, p0=(1.0, 1.0), **settings) -> dfit.FitResult:
    return dfit.fit(model, y, "t", p0=list(p0), warmup=False, **settings)


def bits(found: dfit.FitResult) -> bytes:
    return b"".join(np.asarray(a).tobytes() for a in (found.theta, found.covariance.matrix, found.cost))


def prepared(y: xr.DataArray, validate: str) -> Prepared:
    model = Model.from_callable(decay, ("t",))
    domain = build_domain(model, y, "t")
    settings = Settings(validate=validate)
    return prepare(model, Parameters.resolve(model, p0=[1, 1]), domain, settings, lambda event: None)


@pytest.mark.parametrize(
    ("validate", "words"),
    [
        ("sums", r"at the start in partition 0 \(i\[0:2048\], .*\), with a = 1, b = 0\.5\. Type"),
        (
            "full",
            r"\), first at t = 0\.0, where y = \d\.\d+ and the model is nan, with a = 1, b = 0\.5\. Type",
        ),
    ],
)
def test_model_not_finite_at_p0_is_named_with_place_and_values(
    small_leaves: None, validate: str, words: str
) -> None:
    with pytest.raises(dfit.DataError, match=words):
        fitted(decays(), shifted_log, (1.0, 0.5), validate=validate)


def test_without_validation_a_model_not_finite_at_p0_ends_the_fit_without_a_place(small_leaves: None) -> None:
    found = fitted(decays(), shifted_log, (1.0, 0.5), validate="none")
    assert not found.success
    assert found.message.startswith("failed: the model or its derivative is not finite at the start")


def test_first_point_with_a_derivative_that_is_not_finite_is_named(small_leaves: None) -> None:
    def rooted(t, a, b):
        return a * jnp.sqrt(t - b)

    with pytest.raises(dfit.DataError, match=r"t = 0\.0, .*the model is 0 and a derivative is not finite"):
        fitted(decays(), rooted, (1.0, 0.0), validate="full")


def test_points_that_do_not_count_are_not_named_as_not_finite(small_leaves: None) -> None:
    y = decays()
    with pytest.raises(dfit.DataError, match=r"first at t = 0\.3000\d+, "):
        fitted(y, shifted_log, (1.0, 0.5), validate="full", where=y.t > 0.3)


@pytest.mark.parametrize("warmup", [False, True])
def test_squares_that_overflow_are_told_from_a_model_that_is_not_finite(
    small_leaves: None, warmup: bool
) -> None:
    def huge(t, a, tau):
        return 1e200 * decay(t, a, tau)

    with pytest.raises(dfit.DataError, match="finite at every point, but the squares add up to more than"):
        dfit.fit(huge, decays(), "t", p0=[1, 1], warmup=warmup, validate="full")


def test_standard_errors_whose_sums_overflow_are_said_to_be_unknown_and_where(small_leaves: None) -> None:
    def large(t, a, tau):
        return 1e80 * decay(t, a, tau)

    with pytest.warns(dfit.DfitWarning, match=r"no standard errors: .* not finite in partition \d+ \(i\["):
        found = fitted(decays(1e80), large, (2.0, 1.0), cov="hc1")
    assert found.success
    assert np.isnan(found.covar).all()
    np.testing.assert_allclose(found.theta, fitted(decays()).theta, rtol=1e-10)
    assert "no standard errors" in found.fit_report()


breaks_from: list[float] = []  # seen by the model because this module is imported, not pickled


def breaking(t, a, tau):
    values = a * np.exp(-np.asarray(t) / tau)
    return np.where(t < breaks_from[0], values, np.nan) if breaks_from else values


def test_groups_that_are_not_finite_at_the_end_leave_standard_errors_unknown(small_leaves: None) -> None:
    def end(event: dfit.PassDone) -> None:
        if event.relative_offset < 1e-6:
            breaks_from.append(9.5)

    breaks_from.clear()
    with pytest.warns(dfit.DfitWarning, match=r"no standard errors: .* not finite in partition \d+ \(i\["):
        found = fitted(decays(), breaking, cov={"groups": "group"}, callback=end, tol=1e-6)
    assert np.isnan(found.covar).all()
    np.testing.assert_allclose(found.theta, [3, 2], rtol=0.01)


def test_derivatives_whose_squares_are_lost_are_warned_of(small_leaves: None) -> None:
    def flat(t, a, b):
        return 1e-155 * a * jnp.exp(-t / 2) + b

    with pytest.warns(dfit.DfitWarning, match=r"squares of the derivatives by a \(.*e-15\d\) are too small"):
        fitted(decays(), flat)


@pytest.mark.parametrize(("loss", "cov"), [("huber", None), ("linear", {"groups": "group"})])
def test_validation_changes_no_bit_of_a_sound_fit(small_leaves: None, loss: str, cov: dict | None) -> None:
    y = decays(_7=np.nan, _9000=np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dfit.DfitWarning)
        each = [
            fitted(y, cov=cov, loss=loss, sigma=np.where(y.t > 5, np.inf, 0.05), validate=validate)
            for validate in ("none", "sums", "full")
        ]
    assert each[0].success
    assert len({bits(found) for found in each}) == 1
    assert all(found.recovery_actions == () for found in each)


def test_pass_that_counts_other_points_is_refused(small_leaves: None) -> None:
    y = decays()

    def lose(event: dfit.PassDone) -> None:
        y.values[100] = np.nan

    with pytest.raises(
        dfit.DataError, match=r"it counts 19999 residuals, the first one 20000\. Type: resume=False"
    ):
        fitted(y, callback=lose)


@pytest.mark.parametrize(("validate", "told"), [("sums", False), ("full", True)])
def test_value_in_memory_that_changes_between_passes_is_found_by_full_validation(
    small_leaves: None, validate: str, told: bool
) -> None:
    y = decays()

    def change(event: dfit.PassDone) -> None:
        y.values[100] += 1e-9

    if not told:  # values in memory are this process's own; what is read again is compared anyway
        assert fitted(y, callback=change, validate=validate).success
        return
    with pytest.raises(
        dfit.DataError, match="the moments of y, or its weights, are not those of the first one"
    ):
        fitted(y, callback=change, validate=validate)


@pytest.mark.parametrize(("validate", "summed"), [("none", False), ("sums", True), ("full", True)])
def test_content_is_summed_unless_nothing_is_validated(
    small_leaves: None, validate: str, summed: bool
) -> None:
    ready = prepared(decays().chunk(i=5000), validate)
    ready.evaluator(np.array([2.0, 1.0]))
    assert ready.evaluator.table.columns["content"].astype(bool).all() == summed
    assert ready.evaluator.table.columns["content"].astype(bool).any() == summed
    ready.close()


def test_rounding_of_a_large_constant_is_no_bad_step() -> None:
    def line(t, a, b):
        return a * t + b

    t = np.linspace(0, 1, 20_000)
    y = 1e15 + 5 * t + np.random.default_rng(0).normal(0, 1.4, t.size)
    assert fitted(xr.DataArray(y, dims="t", coords={"t": t}), line, (1.0, 0.0)).success


def test_error_at_the_start_survives_pickling() -> None:
    error = NotFiniteAtStart("a = 1", "in partition 3")
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.place) == (str(error), "in partition 3")


def test_unknown_validation_is_refused() -> None:
    with pytest.raises(dfit.InputError, match="validate is 'all'; expected one of 'none', 'sums', 'full'"):
        fitted(decays(), validate="all")


def proposing(**fields) -> State:
    state = start([1.0, 2.0])
    root = np.array([[3.0, 1e-3, 1.0], [0, 1e-3, 1.0], [0, 0, 1.0]])
    sums = {"cost": 5, "psi2": 10, "scale2": 100}
    equations = state.equations._replace(
        root=root, finite=np.bool_(True), **{n: np.float64(v) for n, v in sums.items()}
    )
    return state._replace(equations=equations, predicted=np.float64(1), **fields)


@pytest.mark.parametrize(
    ("trial", "words"),
    [
        ([np.inf, 2.0], "it would move a from 1 to inf, with derivatives of size 3"),
        ([1.0, np.nan], "it would move b from 2 to nan, with derivatives of size 0.001"),
        ([1.0, 9.5], "it would move b from 2 to 9.5, with derivatives of size 0.001"),
        ([4.0, 9.0], None),
    ],
)
def test_step_that_is_not_finite_or_leaves_the_bounds_is_named(trial: list[float], words: str | None) -> None:
    assert bad_step(proposing(trial=np.array(trial)), *BOX, ["a", "b"]) == words


@pytest.mark.parametrize(
    ("predicted", "words"),
    [
        (-1.0, "it is predicted to lower the cost of 5 by -1"),
        (np.nan, "it is predicted to lower the cost of 5 by nan"),
        (-1e-9, None),
    ],
)
def test_step_that_is_predicted_to_raise_the_cost_is_named(predicted: float, words: str | None) -> None:
    state = proposing(trial=np.array([1.0, 3.0]))._replace(predicted=np.float64(predicted))
    assert bad_step(state, *BOX, ["a", "b"]) == words


def sums(**fields) -> Sums:
    whole = Sums(np.eye(3), 2.0, 4.0, 10.0, np.zeros(2), np.arange(8.0), np.arange(5.0))
    return whole._replace(**fields)


@pytest.mark.parametrize(
    ("now", "words"),
    [
        (sums(cost=-1.0), "its cost is -1, and a sum of squares is not negative"),
        (sums(count=11.0), "it counts 11 residuals, the first one 10"),
        (sums(counts=np.zeros(8)), "it leaves out other points than the first one"),
        (sums(moments=np.arange(5) * (1 + 1e-16)), None),
        (
            sums(moments=np.arange(5) * (1 + 1e-15)),
            "the moments of y, or its weights, are not those of the first one",
        ),
    ],
)
def test_pass_that_is_not_of_the_same_data_is_named(now: Sums, words: str | None) -> None:
    assert bad_total(now, sums(), surveyed=True) == words


def test_sums_that_overflow_are_not_finite() -> None:
    assert is_finite(sums())
    assert not is_finite(sums(cost=np.inf))
    assert not is_finite(sums(matrix=np.full((3, 3), np.nan)))


def test_parts_that_are_finite_and_whose_sum_is_not_are_told_at_the_start(small_leaves: None) -> None:
    def huge(t, a, b):
        return 1.2e152 * a + 0 * b * t  # 2,048 squares of 2e152 are finite, 20,000 are not

    y = decays(1e-3)
    with pytest.raises(
        dfit.DataError, match="at the start in the sum over all partitions, with a = 2, b = 1"
    ):
        fitted(xr.concat([y] * 10, "i").chunk(i=POINTS), huge, (2.0, 1.0))


def test_dask_arrays_are_compared_by_content_between_passes(small_leaves: None, rereading: None) -> None:
    y = decays()
    values = y.values.copy()

    def block(block_info=None) -> np.ndarray:
        at = block_info[None]["array-location"][0]
        return values[slice(*at)].copy()

    lazy = da.map_blocks(block, chunks=((5000,) * 4,), dtype=float, meta=np.empty(0))

    def change(event: dfit.PassDone) -> None:
        values[12_000] += 1e-9

    with pytest.raises(
        dfit.DataError, match=r"the data have changed during the fit: partition \d+ \(i\[10000:15000\]"
    ):
        fitted(y.copy(data=lazy), callback=change)
