"""What to set on a host that holds many clients, and why. `sysctl.conf(5)` takes the names of sysctls as they are."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Setting:
    """name: of a sysctl, or a pattern of files below / with `*`. value: to set; empty: the default stays."""

    name: str
    value: str
    why: str

    @property
    def is_sysctl(self) -> bool:
        """Whether sysctl(8) knows it."""
        return not self.name.startswith("/")


SETTINGS = (
    Setting("net.core.somaxconn", "65535", "The kernel lowers `backlog` to it when a socket begins to listen: "
            "restart flashpol, and the socket unit, after a change. Each network namespace, so each container, has its "
            "own. Where an opening is expensive, set `backlog` lower."),
    Setting("net.ipv4.tcp_syncookies", "", "With 1 a SYN gets a cookie when as many connections are half-open as the "
            "accept queue may hold (`backlog`, `somaxconn`); `net.ipv4.tcp_max_syn_backlog` then has no effect."),
    Setting("net.ipv4.tcp_abort_on_overflow", "", "It applies to a client whose handshake ends while the accept queue "
            "is full. With 0 its ACK is dropped, and the kernel sends SYN-ACK again; with 1 it gets RST. A SYN that "
            "finds the queue full is dropped in both cases."),
    Setting("net.ipv4.ip_local_port_range", "1024 65535", "Each session has a local port towards its upstream. "
            "`net.ipv4.ip_local_reserved_ports` keeps those of other services."),
    Setting("net.ipv4.tcp_timestamps", "", "With 1 here and at the upstream, flashpol takes over ports that are in "
            "TIME-WAIT."),
    Setting("net.ipv4.tcp_max_tw_buckets", "", "Each policy reply leaves a connection in TIME-WAIT. The kernel ends "
            "those above the limit at once, which costs no client its reply."),
    Setting("net.ipv4.tcp_max_orphans", "", "Each reply is an orphan from close until the client has acknowledged it. "
            "Above the limit the kernel resets connections, so replies are lost. `orphan` in /proc/net/sockstat is "
            "their number."),
    Setting("net.netfilter.nf_conntrack_max", "4194304", "A session has two entries, and each connection keeps its "
            "entry for two minutes after its end. At the limit packets are dropped. Without NAT it is better to have "
            "none: `notrack` for the ports of flashpol and of the upstream."),
    Setting("net.netfilter.nf_conntrack_buckets", "1048576", "A look-up is short where a bucket has few entries."),
    Setting("net.netfilter.nf_conntrack_tcp_timeout_established", "", "The `keepalive` of flashpol renews the "
            "entries of idle sessions, and resets those whose client has vanished, so these days do not matter."),
    Setting("fs.nr_open", "1048576, if it is less", "`LimitNOFILE=` of the unit cannot be above it. A worker uses "
            "1,048,576 descriptors at most. systemd raises it on many distributions; do not lower it."),
    Setting("fs.file-max", "", "Open files of the host; two for each session must fit. The kernel computes it from the "
            "memory, and systemd raises it."),
    Setting("fs.epoll.max_user_watches", "", "Each descriptor of a client or of an upstream is in an epoll set, and "
            "all workers are one user. The kernel makes it from the memory; two for each session must fit."),
    Setting("net.core.netdev_max_backlog", "10000", "Packets that wait for a CPU with RPS. The second column of "
            "/proc/net/softnet_stat counts those that were dropped."),
    Setting("/proc/irq/*/smp_affinity_list", "one CPU for each queue of the card", "The CPU that takes a queue's "
            "interrupts does the kernel's part of its connections. `irqbalance` moves them as it sees fit."),
    Setting("/sys/class/net/*/queues/rx-*/rps_cpus", "all CPUs, if the card has fewer queues than CPUs", "RPS spreads "
            "the packets of one queue over CPUs, by connection."),
    Setting("net.core.rps_sock_flow_entries", "", "RFS moves packets to the CPU that reads the socket. Without workers "
            "that are pinned to CPUs it follows the scheduler; it is off by default."),
)  # fmt: skip


def path_of(name: str) -> Path:
    """The file of a sysctl."""
    return Path("/proc/sys", *name.split("."))


def values() -> dict[str, str]:
    """What this host has, by sysctl; without those that its kernel lacks."""
    found = {}
    for setting in SETTINGS:
        path = path_of(setting.name)
        if setting.is_sysctl and path.exists():
            found[setting.name] = " ".join(path.read_text().split())
    return found
