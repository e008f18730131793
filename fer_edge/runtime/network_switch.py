"""The network in use: exchanged while calls run, rebuilt when it fails, replaced by the next provider allowed."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeVar

from fer_edge.core.errors import FerEdgeError, MissingPackageError, SessionError
from fer_edge.runtime.arguments import check_type
from fer_edge.runtime.inference import Network
from fer_edge.runtime.providers import check_provider

__all__ = ["NetworkSwitch", "provider_order"]

T = TypeVar("T")

_PROBATION_S: Final = 60.0  # a rebuilt network that fails within this time is not rebuilt again


def provider_order(given: str | Sequence[str]) -> tuple[str, ...]:
    """Return the providers of an argument, the first choice first.

    Raises:
        InputError: another type, an unknown provider, or none.
    """
    check_type("provider", given, (str, list, tuple), "a provider's name, or several in the order of preference")
    names = (given,) if isinstance(given, str) else tuple(given)
    for name in names or ("",):
        check_provider(name)
    return names


class NetworkSwitch:
    """Holds the network that runs, and runs calls on it.

    A network whose engine fails is opened again once. If that fails too, or the new one fails within a minute, the next
    provider takes over for good. Where none is left, the network stays, and is opened again after a minute.

    Args:
        open_network: opens a variant, by its name, in a provider.
        variant: the variant's name, or ``"auto"``, which each provider resolves.
        providers: the first choice, then those that may take over.

    Raises:
        SessionError, MissingPackageError: no provider opens it; or as `open_network`.
    """

    def __init__(self, open_network: Callable[[str, str], Network], *, variant: str, providers: Sequence[str]) -> None:
        self._open = open_network
        self._variant, self._providers = variant, list(providers)
        self._lock, self._recovery = threading.Lock(), threading.Lock()
        self._calls: Counter[Network] = Counter()  # calls in progress, by the network that each started with
        self._closed = False
        self._rebuilt_s = -_PROBATION_S
        self._faults: list[str] = []  # of the providers that are out
        self._network = self._open_first()

    @property
    def fallback_because(self) -> str | None:
        """Why another provider than the first choice runs; None where that runs."""
        faults = "; ".join(self._faults)
        return f"{self._network.info.provider} runs, because {faults}" if faults else None

    @property
    def network(self) -> Network:
        """The network in use."""
        return self._network

    def change_variant(self, variant: str) -> None:
        """Open another variant and take it from the next call on; calls in progress finish with the old one.

        Raises:
            FerEdgeError: it cannot be opened; the old one stays in use.
        """
        self._exchange(self._open(variant, self._providers[0]))
        self._variant = variant

    def run(self, compute: Callable[[Network], T]) -> T:
        """Return what `compute` makes of the network in use; it may be called again with another network.

        Raises:
            SessionError: the engine failed, and no other one took over.
        """
        while True:
            with self._in_use() as network:
                try:
                    return compute(network)
                except SessionError as error:
                    fault = error
            if not self._recover(network, fault):
                raise fault

    def close(self) -> None:
        """Close the network; a second call does nothing."""
        self._closed = True
        self._network.close()

    def _recover(self, failed: Network, fault: SessionError) -> bool:
        """Put another network in the place of one that failed, unless another call has done it meanwhile."""
        with self._recovery:
            if self._closed or self._network is not failed:
                return not self._closed
            now_s = time.monotonic()
            if now_s - self._rebuilt_s >= _PROBATION_S:
                self._rebuilt_s = now_s
                with contextlib.suppress(FerEdgeError):
                    self._exchange(self._open(self._variant, self._providers[0]))
                    return True
            if len(self._providers) == 1:
                return False
            self._faults.append(f"{self._providers.pop(0)} failed: {fault}")
            try:
                self._exchange(self._open_first())
            except FerEdgeError:
                return False
            return True

    def _open_first(self) -> Network:
        """Open the first provider that can be; those before it are out."""
        while True:
            try:
                return self._open(self._variant, self._providers[0])
            except (SessionError, MissingPackageError) as error:
                if len(self._providers) == 1:
                    raise
                self._faults.append(f"{self._providers.pop(0)} cannot be opened: {error}")

    def _exchange(self, network: Network) -> None:
        with self._lock:
            network, self._network = self._network, network
            idle = not self._calls[network]
            if idle:
                del self._calls[network]
        if idle:
            network.close()

    @contextlib.contextmanager
    def _in_use(self) -> Iterator[Network]:
        """Hold the current network open for one call, whatever replaces it meanwhile."""
        with self._lock:
            network = self._network
            self._calls[network] += 1
        try:
            yield network
        finally:
            with self._lock:
                self._calls[network] -= 1
                retired = not self._calls[network] and network is not self._network
                if retired:
                    del self._calls[network]
            if retired:
                network.close()
