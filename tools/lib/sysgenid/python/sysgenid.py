# SPDX-License-Identifier: MIT
"""Detect that the system was cloned, or restored from a snapshot.

Cloning a virtual machine duplicates state in memory that must be unique, such as
the state of `random`. The `secrets` and `uuid` modules draw from the kernel each
time, and need no adjustment.

In line, with one object for each thing to adjust, in each thread or under a lock:

    seen = sysgenid.Seen()
    if seen.changed():
        adjust()
        seen.remember()

With a callback in a separate thread:

    sysgenid.on_change(lambda generation: sysgenid.reseed_random())

In asyncio:

    async for generation in sysgenid.changes():
        adjust()

This module wraps libsysgenid(3). On a system that reports no clones, all
functions work, and report no change.
"""
import asyncio
import ctypes
import errno
import os
import random
import select
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable

__all__ = ["Handle", "Seen", "Watcher", "changed", "changes", "generation", "is_never_stale",
           "on_change", "open", "remember", "reseed_random"]

_lib = ctypes.CDLL("libsysgenid.so.1", use_errno=True)
_TRACKED = 1
_NEVER_STALE = 1


class _Seen(ctypes.Structure):
    """struct sysgenid_seen of sysgenid.h."""
    _fields_ = [("pointers", ctypes.c_void_p * 3), ("values", ctypes.c_uint64 * 4),
                ("reserved", ctypes.c_uint64 * 5)]


_seen_p = ctypes.POINTER(_Seen)
_number_p = ctypes.POINTER(ctypes.c_uint64)
for _name, _result, *_arguments in (
        ("sysgenid_open", ctypes.c_int),
        ("sysgenid_generation", ctypes.c_uint64),
        ("sysgenid_barrier", ctypes.c_int, _number_p),
        ("sysgenid_get_properties", ctypes.c_uint),
        ("sysgenid_changed", ctypes.c_int, _seen_p, _seen_p),
        ("sysgenid_is_current", ctypes.c_int, _seen_p),
        ("sysgenid_remember", None, _seen_p, _seen_p),
        ("sysgenid_watcher_new", ctypes.c_void_p, ctypes.c_uint),
        ("sysgenid_watcher_free", None, ctypes.c_void_p),
        ("sysgenid_watcher_fd", ctypes.c_int, ctypes.c_void_p),
        ("sysgenid_watcher_wait", ctypes.c_int, ctypes.c_void_p, ctypes.c_int, _number_p),
        ("sysgenid_watcher_ack", ctypes.c_int, ctypes.c_void_p, ctypes.c_uint64)):
    getattr(_lib, _name).restype = _result
    getattr(_lib, _name).argtypes = _arguments


def _error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))


def open() -> None:
    """Searches for a source of the generation again; OSError if there is none.

    A program calls it if the device may have appeared after the program started.
    """
    if _lib.sysgenid_open():
        raise _error()


def generation() -> int:
    """Checks the hardware, then returns the number of the current generation."""
    number = ctypes.c_uint64()
    if _lib.sysgenid_barrier(ctypes.byref(number)):
        raise _error()
    return number.value


def is_never_stale() -> bool:
    """Returns whether changed() detects every restore at once, on any CPU."""
    return bool(_lib.sysgenid_get_properties() & _NEVER_STALE)


class Seen:
    """The generation that something was last adjusted to; a new object has none."""

    def __init__(self) -> None:
        self._seen, self._now = _Seen(), _Seen()

    def changed(self) -> bool:
        """Returns whether the generation changed since remember().

        On a change it queries the kernel first, so the kernel has reseeded.
        """
        return bool(_lib.sysgenid_changed(self._seen, self._now))

    def remember(self) -> None:
        """Stores the generation that changed() found last. Call it after the adjustment."""
        _lib.sysgenid_remember(self._seen, self._now)

    def is_current(self) -> bool:
        """Returns whether the generation is still the one remembered.

        Call it just before a computed result is released.
        """
        return bool(_lib.sysgenid_is_current(self._seen))


_local = threading.local()


def _seen_here() -> Seen:
    if not hasattr(_local, "seen"):
        _local.seen = Seen()
        _local.seen.changed()
        _local.seen.remember()
    return _local.seen


def changed() -> bool:
    """Returns whether the generation changed since this thread's first call or remember()."""
    return _seen_here().changed()


def remember() -> None:
    """Stores the generation that changed() found last in this thread."""
    _seen_here().remember()


class Watcher:
    """Wakes on new generations; its fileno() can be polled. Use it in one thread at a time.

    The overseer of a restore waits for a tracked watcher to acknowledge.
    """

    def __init__(self, tracked: bool = False) -> None:
        self._watcher = None
        self._watcher = _lib.sysgenid_watcher_new(_TRACKED if tracked else 0)
        if not self._watcher:
            raise _error()

    def _open(self) -> int:
        if not self._watcher:
            raise ValueError("the watcher is closed; create a new one")
        return self._watcher

    def fileno(self) -> int:
        """Returns a descriptor that is readable when wait(0) should be called."""
        return _lib.sysgenid_watcher_fd(self._open())

    def wait(self, timeout: float | None = None) -> int | None:
        """Waits for an unacknowledged generation; None after the timeout, in seconds."""
        poll = select.poll()
        poll.register(self.fileno(), select.POLLIN)
        number = ctypes.c_uint64()
        end = None if timeout is None else time.monotonic() + timeout
        left = None
        while True:
            found = _lib.sysgenid_watcher_wait(self._open(), 0, ctypes.byref(number))
            if found < 0:
                raise _error()
            if found:
                return number.value
            if end is not None:
                left = max(end - time.monotonic(), 0)
            if left == 0:
                return None
            poll.poll(None if left is None else left * 1000)

    def ack(self, number: int) -> bool:
        """Acknowledges a generation; False if there is a newer one to adjust to."""
        if not _lib.sysgenid_watcher_ack(self._open(), number):
            return True
        error = _error()
        if error.errno == errno.ESTALE:
            return False
        raise error

    def close(self) -> None:
        watcher, self._watcher = self._watcher, None
        if watcher:
            _lib.sysgenid_watcher_free(watcher)

    def __enter__(self) -> "Watcher":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


class Handle:
    """The callback of one on_change()."""

    def __init__(self, callback: Callable[[int], object], tracked: bool) -> None:
        self._callback = callback
        self._cancelled = False
        self._end = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._watcher = Watcher(tracked)
        self._start()
        _handles.add(self)

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="sysgenid", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._end, select.POLLIN)
        poll.register(self._watcher.fileno(), select.POLLIN)
        # In a forked child, the first wait() separates the watcher from its parent's.
        while self._adjust() and not any(fd == self._end for fd, _ in poll.poll()):
            pass

    def _adjust(self) -> bool:
        """Calls the callback until all is acknowledged; False if the thread must end."""
        while (number := self._watcher.wait(0)) is not None:
            try:
                self._callback(number)
                failed = False
            except Exception:       # pylint: disable=broad-except
                sys.excepthook(*sys.exc_info())
                failed = True
            # The callback may have cancelled this, or forked: a child has a new thread.
            if self._cancelled or self._thread is not threading.current_thread():
                return False
            if not failed:
                self._watcher.ack(number)
            # Unacknowledged: call it again, after a second.
            elif select.select([self._end], [], [], 1)[0]:
                return False
        return True

    def cancel(self) -> None:
        """Ends the callbacks. Waits for a running one to return, except from within it."""
        if self in _handles:
            _handles.discard(self)
            self._cancelled = True
            os.eventfd_write(self._end, 1)
            if self._thread is not threading.current_thread():
                self._thread.join()
            os.close(self._end)
            self._watcher.close()


_handles: set[Handle] = set()


def _restart_in_child() -> None:
    """Starts new threads: a child inherits watchers and their events, but no threads."""
    for handle in list(_handles):
        os.close(handle._end)
        handle._end = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        handle._start()


os.register_at_fork(after_in_child=_restart_in_child)


def on_change(callback: Callable[[int], object], tracked: bool = False) -> Handle:
    """Calls a function with each new generation, in a separate thread.

    The generation is acknowledged when the function returns. If it raises an
    exception, that is reported, and the function is called again after a second.
    """
    return Handle(callback, tracked)


async def changes(tracked: bool = False) -> AsyncIterator[int]:
    """Yields each new generation, and acknowledges it when the next one is requested."""
    loop = asyncio.get_running_loop()
    woken = asyncio.Event()
    with Watcher(tracked) as watcher:
        loop.add_reader(watcher.fileno(), woken.set)
        try:
            while True:
                number = watcher.wait(0)
                if number is None:
                    woken.clear()
                    await woken.wait()
                    continue
                # The descriptor stays readable until acknowledged: stop polling it.
                loop.remove_reader(watcher.fileno())
                yield number
                watcher.ack(number)
                loop.add_reader(watcher.fileno(), woken.set)
        finally:
            loop.remove_reader(watcher.fileno())


def reseed_random() -> None:
    """Seeds the generators of `random`, and of `numpy.random` if loaded, from the kernel.

    The program itself must replace separate instances, such as `random.Random` and
    `numpy.random.default_rng()`.
    """
    random.seed()
    numpy = sys.modules.get("numpy")
    if numpy:
        numpy.random.seed()
