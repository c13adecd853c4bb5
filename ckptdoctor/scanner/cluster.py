"""An existing Dask cluster as the place where checkpoints are measured (extra `cluster`)."""

from __future__ import annotations

import contextlib
import time
from concurrent.futures import Future
from typing import Any

from ckptdoctor import __version__
from ckptdoctor.model import CkptDoctorError
from ckptdoctor.scanner.child import Limits
from ckptdoctor.scanner.pool import Answer, Task, measure_contained

CONNECT_SECONDS = 15.0
WORKERS_SECONDS = 30.0
GONE_SECONDS = 20.0  # a scheduler that does not answer for so long is given up
RETRIES = 3  # times that a checkpoint is handed to another worker after one was lost


def version_there() -> str:
    """The version of ckptdoctor where this runs."""
    return __version__


class DaskPool:
    """Tasks go to the cluster's workers, each of which measures in a contained process of its own.

    Raises:
        CkptDoctorError: dask.distributed is not installed, nothing answers at the address, no worker is connected, or the
            workers have no or another ckptdoctor.
    """

    def __init__(self, address: str, limits: Limits) -> None:
        self._address, self._limits = address, limits
        self._silent_since: float | None = None
        try:
            import distributed
        except ImportError:
            raise CkptDoctorError("--cluster needs dask.distributed; run: pip install 'ckptdoctor[cluster]'") from None
        try:
            connect: Any = distributed.Client
            self._client: Any = connect(address, timeout=CONNECT_SECONDS, set_as_default=False, name="ckptdoctor")
        except (OSError, ValueError, TimeoutError) as error:
            words = " ".join(str(error).split())[:200]
            raise CkptDoctorError(
                f"no Dask scheduler answers at {address} within {CONNECT_SECONDS:g} s ({words}); check the address and that it runs"
            ) from None
        try:
            self.threads = self._check_workers()
        except BaseException:
            self.close()
            raise
        self._executor: Any = self._client.get_executor(pure=False, retries=RETRIES)

    def _check_workers(self) -> int:
        """Threads of all workers, after making sure that they can do the work."""
        try:
            there = self._client.submit(version_there, pure=False).result(timeout=WORKERS_SECONDS)
        except TimeoutError:
            raise CkptDoctorError(
                f"the Dask scheduler at {self._address} answers, but no worker of it did within {WORKERS_SECONDS:g} s; start workers"
            ) from None
        except ImportError as error:
            raise CkptDoctorError(
                f"the workers of {self._address} cannot import ckptdoctor ({error}); install it there"
            ) from None
        except Exception as error:  # noqa: BLE001 - whatever the cluster throws
            raise CkptDoctorError(f"the cluster at {self._address} failed: {type(error).__name__}: {error}") from None
        if there != __version__:
            raise CkptDoctorError(
                f"the workers of {self._address} have ckptdoctor {there}, this is {__version__}; install the same"
            )
        return max(1, sum(int(count) for count in self._client.nthreads().values()))

    def submit(self, task: Task) -> Future[Answer]:
        """Hand a task to the cluster; a worker that is lost has its tasks done by another."""
        try:
            future: Future[Answer] = self._executor.submit(
                measure_contained, task, self._limits.timeout, self._limits.memory
            )
        except Exception as error:  # noqa: BLE001 - whatever a client that lost its scheduler throws
            raise CkptDoctorError(f"the Dask scheduler at {self._address} is gone ({error})") from None
        return future

    def trouble(self) -> str | None:
        """A sentence where the scheduler is gone, else None."""
        if self._client.status == "running":
            self._silent_since = None
            return None
        now = time.monotonic()
        self._silent_since = self._silent_since or now
        if self._client.status == "closed" or now - self._silent_since > GONE_SECONDS:
            return f"the Dask scheduler at {self._address} is gone"
        return None

    def ready(self) -> bool:
        """Whether the scheduler is connected: what is handed over without one is lost at once."""
        return bool(self._client.status == "running")

    def close(self) -> None:
        """Leave the cluster; what was handed over and is not done is taken back."""
        with contextlib.suppress(Exception):
            self._client.close(timeout=5)
