"""A cluster that talks TLS only: fits as any other, and strangers stay outside."""

from __future__ import annotations

import datetime
import ipaddress
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dask.array as da
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from distributed import Client, LocalCluster, Security

import dfit

PAGE = Path(__file__).resolve().parents[2] / "SECURITY.md"
Signed = tuple[x509.Certificate, ec.EllipticCurvePrivateKey]


def signed(name: str, by: Signed | None = None) -> Signed:
    """Certificate and key of a name; an authority's own where nobody signs it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now, day = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=1)
    here = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(by[0].subject if by else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - day)
        .not_valid_after(now + day)
        .add_extension(x509.BasicConstraints(ca=by is None, path_length=None), critical=True)
        .add_extension(here, critical=False)
        .sign(by[1] if by else key, hashes.SHA256())
    )
    return certificate, key


def security(folder: Path) -> Security:
    """What scheduler, workers and client need, in PEM files that only their owner may read."""
    authority = signed("authority")
    certificate, key = signed("dfit", authority)
    pem = serialization.Encoding.PEM
    kind, open_key = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    contents = {
        "ca.pem": authority[0].public_bytes(pem),
        "cert.pem": certificate.public_bytes(pem),
        "key.pem": key.private_bytes(pem, kind, open_key),
    }
    for name, content in contents.items():
        with open(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
    ours = {"cert": str(folder / "cert.pem"), "key": str(folder / "key.pem")}
    roles = {
        f"tls_{role}_{what}": path
        for role in ("client", "scheduler", "worker")
        for what, path in ours.items()
    }
    return Security(tls_ca_file=str(folder / "ca.pem"), require_encryption=True, **roles)


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Security:
    return security(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def cluster(secured: Security) -> Iterator[LocalCluster]:
    with LocalCluster(
        n_workers=2, threads_per_worker=1, security=secured, dashboard_address="127.0.0.1:0"
    ) as cluster:
        yield cluster


def decay(t, a, tau, c):
    return a * jnp.exp(-t / tau) + c


def bits(workers: int = 1) -> bytes:
    t = np.linspace(0, 9, 20_000)
    clean = da.from_array(3 * np.exp(-t / 2) + 1 + 0.01 * np.sin(7 * t), chunks=2000)
    data = xr.DataArray(clean, dims="i", coords={"t": ("i", t)})
    found = dfit.fit(decay, data, "t", p0=[2, 1, 0])
    assert (found.success, found.run.workers) == (True, workers)
    return np.array(
        [*found.theta, *(found.params[name].stderr for name in found.params), found.cost]
    ).tobytes()


def test_fit_over_tls_gives_the_same_bits(
    cluster: LocalCluster, secured: Security, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dfit.data.plan.LEAF_POINTS", 2000)  # so that there are several tasks
    expected = bits()
    assert cluster.scheduler_address.startswith("tls://127.0.0.1:")
    with Client(cluster.scheduler_address, security=secured) as client:
        assert all(address.startswith("tls://") for address in client.scheduler_info()["workers"])
        assert bits(workers=2) == expected


def test_client_without_tls_is_refused(cluster: LocalCluster) -> None:
    plain = cluster.scheduler_address.replace("tls://", "tcp://")
    with pytest.raises(OSError, match=r"Timed out|closed"), Client(plain, timeout=2):
        pass


def test_client_of_another_authority_is_refused(cluster: LocalCluster, tmp_path: Path) -> None:
    with (
        pytest.raises(OSError, match=r"certificate|Timed out|closed|CERTIFICATE"),
        Client(cluster.scheduler_address, security=security(tmp_path), timeout=2),
    ):
        pass


UNDER_CONFIGURATION = """
from distributed import Client, LocalCluster
if __name__ == "__main__":
    with LocalCluster(n_workers=1, dashboard_address=None) as cluster, Client(cluster) as client:
        print(*client.scheduler_info()["workers"], cluster.scheduler_address)
"""


def test_configuration_of_the_page_makes_all_talk_tls(
    tmp_path: Path, source_environment: dict[str, str]
) -> None:
    security(tmp_path)
    (block,) = re.findall(r"^```yaml\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    (tmp_path / "security.yaml").write_text(block.replace("/home/me/tls", str(tmp_path)))
    (tmp_path / "plain.py").write_text(UNDER_CONFIGURATION)
    out = subprocess.run(
        [sys.executable, str(tmp_path / "plain.py")],
        env=source_environment | {"DASK_CONFIG": str(tmp_path)},
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    ).stdout
    assert [address.split(":")[0] for address in out.split()] == ["tls", "tls"]
