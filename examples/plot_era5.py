"""Draw the picture of the README: temperatures of March 2019 and the fitted season.

pip install ".[plot]" && python examples/plot_era5.py
"""

from __future__ import annotations

from pathlib import Path

import matplotlib
import xarray as xr
from era5_season import fit_season, temperature

PICTURE = Path(__file__).parent / "era5_fit.png"


def draw(data: xr.DataArray, fitted: xr.DataArray, path: Path) -> None:
    """Means over the map by time, and over the map and all days by hour, of data and fit."""
    matplotlib.use("agg")
    from matplotlib import pyplot as plt
    from matplotlib.dates import ConciseDateFormatter

    figure, (month, day) = plt.subplots(1, 2, figsize=(9, 3), width_ratios=(2, 1), layout="constrained")
    for values, label, color, by_hour in ((data, "ERA5", "0.6", "o"), (fitted, "fit", "C3", "-")):
        area = values.mean(("latitude", "longitude")).compute()
        month.plot(area.time, area, color=color, label=label)
        hours = area.groupby("time.hour").mean()
        day.plot(hours.hour, hours, by_hour, color=color)
    month.set(ylabel="2 m temperature (K)", title="mean over the map")
    month.xaxis.set_major_formatter(ConciseDateFormatter(month.xaxis.get_major_locator()))
    month.legend(frameon=False)
    day.set(xlabel="hour of the day (UTC)", title="mean over map and days")
    figure.savefig(path, dpi=100, metadata={"Software": None})


def main() -> None:
    data = temperature()
    draw(data, fit_season(data).eval(), PICTURE)
    print(f"{PICTURE}: {PICTURE.stat().st_size} bytes")


if __name__ == "__main__":
    main()
