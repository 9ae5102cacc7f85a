"""CPU time, memory and start of a process, from /proc."""

import os
import time
from dataclasses import dataclass

_TICK_NS = 10**9 // os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
# When the kernel started: /proc/PID/stat counts from there. Not from /proc/stat, which systemd's ProcSubset=pid hides;
# and computed once, so that setting the clock does not change when processes seem to have started.
_BOOT_MS = (time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)) // 10**6


@dataclass(frozen=True)
class Usage:
    """CPU time in nanoseconds, resident memory in bytes, and the start in milliseconds since the epoch."""

    cpu_ns: int
    resident_bytes: int
    started_ms: int

    @classmethod
    def of(cls, pid: int) -> "Usage | None":
        """None if the process has ended."""
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                # The name may hold spaces and brackets; after its last bracket come state, ppid, … (proc(5)).
                fields = [int(field) for field in file.read().rpartition(b")")[2].split()[1:]]
        except OSError:
            return None
        utime, stime, started, resident = fields[10], fields[11], fields[18], fields[20]
        return cls((utime + stime) * _TICK_NS, resident * _PAGE, _BOOT_MS + started * _TICK_NS // 10**6)
