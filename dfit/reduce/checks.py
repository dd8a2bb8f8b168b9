"""What is checked of the numbers that tasks bring, and how it is said."""

from __future__ import annotations

from typing import Any

from dfit.core.sums import DROPS, MISSING, Sums, underflows
from dfit.data.plan import Partition
from dfit.errors import DataError
from dfit.reduce.books import Table
from dfit.reduce.task import Failure

AGAIN = "Type: resume=False to begin again, with data that nothing writes to"


def differs(before: Table, now: Table, partition: Partition) -> bool:
    """Whether the values of a partition are others than in the pass before; False where one has not read all."""
    contents = []
    for table in (before, now):
        if table.columns["leaves"][partition.index] != partition.leaves:
            return False
        contents.append(table.columns["content"][partition.index])
    return bool(contents[0] and contents[1] and contents[0] != contents[1])  # 0: not looked at


def unreadable(failure: Failure, place: str) -> str:
    """What to say of a piece that gave nothing."""
    if failure.kind == "read":
        return f"{place} stays unreadable: {failure.text}"
    killed = "its worker was killed again and again" if failure.kind == "killed" else "memory ran out"
    return (
        f"{place} could not be summed: {killed}, even alone in its task ({failure.error}: {failure.text}). Type: "
        "y = y.chunk(...) with smaller chunks, or give the workers more memory"
    )


class NotFiniteAtStart(DataError):
    """The model is not finite where the fit begins, ``place``: "in" a partition or "at" points of a sample."""

    def __init__(self, values: str, place: str) -> None:
        self.values, self.place = values, place
        super().__init__(
            f"the model or its derivative is not finite at the start {place}, with {values}. Type a p0 where "
            'it is, bounds that keep it there, where= to leave such points out, or validate="full" to see the '
            "first of them"
        )

    def __reduce__(self) -> Any:
        return type(self), (self.values, self.place), self.__dict__


def unusable(what: str, count: int, place: str) -> str:
    """What to say of values that no fit can use."""
    return f"{what} at {count} or more points in {place}. {remedy(what)}"


def remedy(what: str) -> str:
    """What to type against values that no fit can use."""
    left_out = "where=sigma > 0" if "sigma" in what else "where=np.isfinite(y) (and of the coordinates)"
    missing = "skipna=True (in curve_fit: nan_policy='omit')"
    return f"To leave them out type: {missing if what in MISSING else left_out}"


def drops(survey: Sums) -> dict[str, int]:
    """Points left out by reason."""
    return {name: int(count) for name, count in zip(DROPS, survey.counts, strict=False) if count}


def require_points(survey: Sums, varying: int) -> None:
    """Refuse data that leave nothing to fit, or less than the parameters need."""
    count = int(survey.count)
    why = ", ".join(f"{reason}: {n}" for reason, n in drops(survey).items())
    if count == 0:
        raise DataError(f"no point is left to fit ({why}); check where= and sigma=")
    if count < varying:
        raise DataError(
            f"{count} points are left ({why}) for {varying} parameters; fix some with fixed={{name: value}}"
        )
    if underflows(survey.moments):
        raise DataError(
            "the squares of y / sigma are too small for float64, so that every p0 would look right. Type y, and "
            "with it sigma and p0, in another unit, in which y / sigma is larger"
        )
