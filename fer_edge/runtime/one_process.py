"""Objects that belong to the process that opened them: they hold an engine, a camera or threads."""

from __future__ import annotations

import functools
import os
from typing import Any, SupportsIndex, TypeVar

from fer_edge.core.errors import InputError, SessionError

__all__ = ["OneProcess", "Reopened"]

Made = TypeVar("Made", bound="OneProcess")
MadeAgain = TypeVar("MadeAgain", bound="Reopened")


class OneProcess:
    """Base of what cannot be sent to another process, nor copied, nor used after a fork."""

    _opened_in: int

    def __new__(cls: type[Made], *arguments: Any, **options: Any) -> Made:
        made = super().__new__(cls)
        made._opened_in = os.getpid()
        return made

    def check_process(self) -> None:
        """Refuse use in a forked process, where the threads of the engine do not exist and a call would never return.

        Raises:
            SessionError: this process did not open the object.
        """
        if os.getpid() != self._opened_in:
            raise SessionError(
                f"{type(self).__name__}: got a call in a forked process, expected one in the process that opened it; "
                "open it after the fork, or use multiprocessing.get_context('spawn')"
            )

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        raise InputError(
            f"{type(self).__name__}: got a copy or a way into another process, expected use in the process that opened "
            "it; open another one there (a Recognizer or a detector may be sent: it is opened again)"
        )


class Reopened(OneProcess):
    """Base of what is opened again where it is copied or sent to another process, with the same arguments."""

    _opened_with: tuple[tuple[Any, ...], dict[str, Any]]

    def __new__(cls: type[MadeAgain], *arguments: Any, **options: Any) -> MadeAgain:
        made = super().__new__(cls)
        made._opened_with = arguments, options
        return made

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        return functools.partial(type(self), **self._opened_with[1]), self._opened_with[0]
