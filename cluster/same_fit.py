"""The same fit on a cluster of this computer or through Slurm; only the cluster differs.

python cluster/same_fit.py --cluster local
python cluster/same_fit.py --cluster slurm --jobs 4 --queue normal
python cluster/same_fit.py --cluster slurm --job-script        # print what would be submitted
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import dask
import jax.numpy as jnp
import xarray as xr
from distributed import Client, LocalCluster, Security
from distributed.deploy import SpecCluster

import dfit

DATA = Path(__file__).resolve().parents[1] / "examples" / "data" / "era5_t2m_uk_2019-03.nc"

# The scheduler lives in this process, so these reach it; cluster/README.md says why each is here.
SETTINGS = {
    "distributed.scheduler.allowed-failures": 10,
    "distributed.scheduler.worker-ttl": "120s",
    "distributed.deploy.lost-worker-timeout": "15s",
    "distributed.dashboard.link": "http://127.0.0.1:{port}/status",
}

# Without a host dask shows the dashboard, and with it data and code, to the whole network.
DASHBOARD = "127.0.0.1:8787"


def season(time, latitude, longitude, T0, dlat, dlon, trend, amp, tmax, period):
    """Temperature (K): plane in latitude and longitude, linear trend over the month, daily cosine."""
    daily = amp * jnp.cos(2 * jnp.pi * (time - tmax) / period)
    return T0 + dlat * (latitude - 54) + dlon * (longitude + 4) + trend * (time / 744 - 0.5) + daily


def the_fit() -> dfit.FitResult:
    """One fit over every chunk; it runs on whichever dask cluster has a client."""
    data = xr.open_dataset(DATA, chunks={}).t2m
    start = {"T0": 280, "dlat": 0, "dlon": 0, "trend": 0, "amp": 1, "tmax": 14, "period": 24}
    return dfit.fit(season, data, ("time", "latitude", "longitude"), time_unit="h", p0=start)


def local_cluster(workers: int) -> LocalCluster:
    """Processes of this computer, one thread each."""
    return LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=DASHBOARD)


def slurm_cluster(
    queue: str | None, cores: int, memory: str, walltime: str, shared: Path, interface: str | None
) -> SpecCluster:
    """Jobs of a Slurm queue, not yet submitted; one process per core in each, and TLS between all."""
    from dask_jobqueue import SLURMCluster

    return SLURMCluster(
        queue=queue,
        cores=cores,
        processes=cores,
        memory=memory,
        walltime=walltime,
        death_timeout=60,
        interface=interface,
        protocol="tls://",
        security=Security.temporary(),
        shared_temp_directory=str(shared),
        scheduler_options={"dashboard_address": DASHBOARD},
        job_script_prologue=["unset PYTHONDONTWRITEBYTECODE"],
    )


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cluster", choices=("local", "slurm"), default="local")
    parser.add_argument(
        "--jobs", type=int, default=2, help="jobs on Slurm, worker processes on this computer"
    )
    parser.add_argument("--queue", help="partition of Slurm")
    parser.add_argument("--cores", type=int, default=4, help="cores of one job")
    parser.add_argument("--memory", default="8GB", help="memory of one job, shared by its processes")
    parser.add_argument("--walltime", default="01:00:00")
    parser.add_argument("--interface", help="network between the nodes, such as ib0")
    parser.add_argument(
        "--shared", type=Path, default=Path.cwd(), help="folder that every node sees, for the keys of TLS"
    )
    parser.add_argument("--job-script", action="store_true", help="print the job script of Slurm and end")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    chosen = options(arguments)
    with dask.config.set(SETTINGS):
        if chosen.cluster == "local":
            cluster = local_cluster(chosen.jobs)
        else:
            cluster = slurm_cluster(
                chosen.queue, chosen.cores, chosen.memory, chosen.walltime, chosen.shared, chosen.interface
            )
        with cluster:
            if chosen.job_script:
                print(cluster.job_script())
                return
            if chosen.cluster == "slurm":
                cluster.scale(jobs=chosen.jobs)
            with Client(cluster) as client:
                print(f"Dashboard: {client.dashboard_link}")
                client.wait_for_workers(1)
                print(the_fit().fit_report())


if __name__ == "__main__":
    main()
