"""The system calls that a program in the sandbox may not make, as a filter for the kernel.

Namespaces hide what is outside, and limits count what a process maps. Some calls get around the limits:
memory that is shared or behind a descriptor belongs to no process's address space. Others are never needed
by a program that computes something, and are where the kernel itself was attacked. They fail as if they were
not permitted.
"""

from __future__ import annotations

import platform
import struct
from collections.abc import Mapping

__all__ = ["DENIED", "syscall_filter"]

DENIED: Mapping[str, tuple[int, int]] = {
    # Memory that no limit counts.
    "shmget": (29, 194),
    "shmat": (30, 196),
    "msgget": (68, 186),
    "semget": (64, 190),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    # Other processes, the kernel's keys, and its more adventurous parts.
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "mount": (165, 40),
    "unshare": (272, 97),
    "setns": (308, 268),
}
"""The number of each call on x86-64 and on 64-bit ARM."""

ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
"""For each machine, the place of its numbers in `DENIED`, and what the kernel calls it."""

LOAD, EQUAL, AT_LEAST, RETURN = 0x20, 0x15, 0x35, 0x06
ALLOW, NOT_PERMITTED, KILL = 0x7FFF0000, 0x00050001, 0x80000000
X32 = 0x40000000
"""From this number on, calls of x86-64 are those of another interface to the same kernel."""


def syscall_filter() -> bytes:
    """Return the filter of this machine as a program of the kernel's (classic BPF); empty for an unknown
    machine.

    A call by another architecture's numbers ends the process, because the filter would misread it.
    """
    known = ARCHITECTURES.get(platform.machine())
    if known is None:
        return b""
    place, architecture = known
    steps = [(LOAD, 0, 0, 4), (EQUAL, 1, 0, architecture), (RETURN, 0, 0, KILL), (LOAD, 0, 0, 0)]
    steps += [(AT_LEAST, 0, 1, X32), (RETURN, 0, 0, KILL)]
    for numbers in DENIED.values():
        steps += [(EQUAL, 0, 1, numbers[place]), (RETURN, 0, 0, NOT_PERMITTED)]
    steps.append((RETURN, 0, 0, ALLOW))
    return b"".join(struct.pack("HBBI", *step) for step in steps)
