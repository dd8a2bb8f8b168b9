"""Draw the map of the README: diffusivity and anisotropy in four slices of a piece of brain.

pip install ".[plot]" && python examples/plot_diffusion.py
"""

from __future__ import annotations

from pathlib import Path

import matplotlib
import xarray as xr
from diffusion_tensor import facts, fit_tensors, voxels

PICTURE = Path(__file__).parent / "diffusion_map.png"
SLICES = (6, 7, 8, 9)
ROWS = (
    ("mean", "mean diffusivity\n(µm²/ms)", "viridis", 3.5),
    ("anisotropy", "fractional anisotropy", "magma", 1.0),
)


def draw(found: xr.Dataset, path: Path) -> None:
    """Both quantities in all slices, without the voxels that are not significant."""
    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(
        2, len(SLICES), figsize=(9, 4.4), layout="constrained", sharex=True, sharey=True
    )
    for row, (name, label, colors, top) in zip(axes, ROWS, strict=True):
        for axis, z in zip(row, SLICES, strict=True):
            shown = found[name].where(found.significant).isel(z=z).transpose("y", "x")
            image = axis.imshow(shown, origin="lower", cmap=colors, vmin=0, vmax=top)
            axis.set_facecolor("0.8")
            axis.tick_params(length=0, labelsize=8)
        figure.colorbar(image, ax=row, label=label, pad=0.01)
    for axis, z in zip(axes[0], SLICES, strict=True):
        axis.set_title(f"z = {z}", fontsize=10)
    figure.supxlabel("x (voxels)", fontsize=9)
    figure.supylabel("y (voxels)", fontsize=9)
    figure.savefig(path, dpi=100, metadata={"Software": None})


def main() -> None:
    draw(facts(fit_tensors(voxels()).compute()), PICTURE)
    print(f"{PICTURE}: {PICTURE.stat().st_size} bytes")


if __name__ == "__main__":
    main()
