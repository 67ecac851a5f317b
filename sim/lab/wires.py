"""The lab's network: a namespace for each node, joined by a bridge in one more, and nothing on the host.

    node 0 [eth0 10.77.0.1] --- [node-0] |
    node 1 [eth0 10.77.0.2] --- [node-1] | bridge "wires", where packets are dropped and queues are slow
    ...                                  |

None of the namespaces has a name or a way out: each lives as long as a process in it or a descriptor of this
one. When the lab ends, however it ends, the kernel takes them down with all that is in them.
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from attrs import define, field, frozen

from sim.lab.links import Links, Shape, ruleset
from sim.lab.machine import CLONE_NEWNET, LabError, setns, unshare

BRIDGE = "wires"
DEVICE = "eth0"
PORT = 4001
PREFIX_BITS = 16
MTU_BYTES = 1500
QUEUE_S = 1.0
"""How long a packet may wait for a slow link before the next ones are dropped."""


def port_name(node: int) -> str:
    """The bridge's end of a node's wire."""
    return f"node-{node}"


def address_of(node: int) -> str:
    """Where a node is, inside the lab."""
    return f"10.77.{(node + 1) >> 8}.{(node + 1) & 0xFF}"


def listen_address(node: int) -> str:
    """Where a node listens, as a multiaddr. Ports need not differ: each node has its own address."""
    return f"/ip4/{address_of(node)}/tcp/{PORT}"


@frozen(eq=False)
class Namespace:
    """A network namespace without a name, kept by `descriptor`."""

    descriptor: int

    def enter(self) -> None:
        """Move this process into it."""
        setns(self.descriptor, CLONE_NEWNET)

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Be in it for a moment."""
        with _away_and_back():
            self.enter()
            yield

    @contextmanager
    def netlink(self) -> Iterator[Any]:
        """Speak to the kernel about it. Closed before anything is forked: pyroute2 cannot be shared."""
        from pyroute2 import IPRoute

        with self.inside(), IPRoute() as socket:
            yield socket

    def close(self) -> None:
        os.close(self.descriptor)


@contextmanager
def _away_and_back() -> Iterator[None]:
    """Whatever namespace this process is in afterwards, it returns to its own.

    Ctrl-C has to wait for that: pyroute2 does not stand being interrupted.
    """
    home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        yield
    finally:
        setns(home, CLONE_NEWNET)
        os.close(home)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def open_namespace() -> Namespace:
    """Make one. Raises `LabError`."""
    with _away_and_back():
        try:
            unshare(CLONE_NEWNET)
        except OSError as error:
            raise LabError(f"no network namespace can be made here: {error.strerror}") from error
        with suppress(OSError):  # a machine without IPv6 has nothing to switch off
            Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").write_text("1")
        return Namespace(os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC))


def _index_of(netlink: Any, device: str) -> int:
    """The kernel's number of a device."""
    (number,) = netlink.link_lookup(ifname=device)
    return int(number)


@define(eq=False)
class Wires:
    """The network of `count` nodes, made by `open` and taken down by `close`. Raises `LabError`.

    `has_netem`: whether the kernel can delay packets.
    """

    count: int
    has_netem: bool = field(default=False, init=False)
    _hub: Namespace = field(init=False)
    _nodes: list[Namespace] = field(factory=list, init=False)
    _ports: list[int] = field(factory=list, init=False)
    _devices: list[int] = field(factory=list, init=False)
    _links: Links = field(init=False)

    def open(self) -> None:
        from pyroute2.netlink.exceptions import NetlinkError

        self._links = Links.whole(self.count)
        try:
            self._hub = open_namespace()
            self._nodes += [open_namespace() for _ in range(self.count)]
            with self._hub.netlink() as netlink:
                self._plug_in(netlink)
                self.has_netem = _try_netem(netlink, self._ports[0])
            for node, namespace in enumerate(self._nodes):
                with namespace.netlink() as netlink:
                    self._devices.append(_set_address(netlink, address_of(node)))
        except NetlinkError as error:
            raise LabError(f"the network of the lab cannot be made: {error}") from error
        self._load_rules(self._links)

    def close(self) -> None:
        for namespace in (*self._nodes, *([self._hub] if hasattr(self, "_hub") else [])):
            namespace.close()
        self._nodes.clear()

    def enter(self, node: int) -> None:
        """Move this process, which is to be that node, into the node's namespace."""
        self._nodes[node].enter()

    def _plug_in(self, netlink: Any) -> None:
        netlink.link("add", ifname=BRIDGE, kind="bridge")
        bridge = _index_of(netlink, BRIDGE)
        netlink.link("set", index=bridge, state="up")
        for node, namespace in enumerate(self._nodes):
            end = {"ifname": DEVICE, "net_ns_fd": namespace.descriptor}
            netlink.link("add", ifname=port_name(node), kind="veth", peer=end)
            port = _index_of(netlink, port_name(node))
            netlink.link("set", index=port, master=bridge, state="up")
            self._ports.append(port)

    # -- faults ------------------------------------------------------------------------------------

    def apply(self, links: Links) -> None:
        """Make the network what `links` says; what stays as it is is not touched."""
        for node in range(self.count):
            if links.is_down(node) != self._links.is_down(node):
                with self._hub.netlink() as netlink:
                    state = "down" if links.is_down(node) else "up"
                    netlink.link("set", index=self._ports[node], state=state)
            if links.shape(node) != self._links.shape(node):
                self._shape(node, links.shape(node))
        if ruleset(links, port_name) != ruleset(self._links, port_name):
            self._load_rules(links)
        self._links = links

    def _load_rules(self, links: Links) -> None:
        """All rules at once: what was there before is gone in the same instant."""
        rules = ruleset(links, port_name)
        with self._hub.inside():
            loaded = subprocess.run(
                ["nft", "-f", "-"], input=rules, capture_output=True, text=True, check=False
            )
        if loaded.returncode:
            raise LabError(f"nft refuses the lab's rules: {loaded.stderr.strip()}")

    def _shape(self, node: int, shape: Shape) -> None:
        """Queues at both ends of a node's wire, so that they hold in both directions."""
        for namespace, device in ((self._hub, self._ports[node]), (self._nodes[node], self._devices[node])):
            with namespace.netlink() as netlink:
                _shape_device(netlink, device, shape, self.has_netem)


def _set_address(netlink: Any, address: str) -> int:
    """Bring a node's end of its wire up; the device's number."""
    device = _index_of(netlink, DEVICE)
    netlink.addr("add", index=device, address=address, prefixlen=PREFIX_BITS)
    for number in (_index_of(netlink, "lo"), device):
        netlink.link("set", index=number, state="up")
    return device


def _try_netem(netlink: Any, device: int) -> bool:
    """Whether the kernel can delay packets: asked by trying."""
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        netlink.tc("add", "netem", device, "1:", delay=0)
    except NetlinkError as error:
        if error.code in (errno.ENOENT, errno.EOPNOTSUPP):
            return False
        raise
    netlink.tc("del", index=device, root=True)
    return True


def _shape_device(netlink: Any, device: int, shape: Shape, has_netem: bool) -> None:
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        netlink.tc("del", index=device, root=True)
    except NetlinkError as error:
        if error.code not in (errno.ENOENT, errno.EINVAL):  # there was none
            raise
    parent: dict[str, Any] = {}
    if shape.bytes_per_s is not None:
        burst = max(2 * MTU_BYTES, shape.bytes_per_s // 50)
        limit = burst + int(shape.bytes_per_s * QUEUE_S)
        netlink.tc("add", "tbf", device, "1:", rate=shape.bytes_per_s, burst=burst, limit=limit, latency="1s")
        parent = {"parent": "1:1"}
    if has_netem and shape.delay_max_ms:
        middle = (shape.delay_min_ms + shape.delay_max_ms) * 500
        spread = (shape.delay_max_ms - shape.delay_min_ms) * 500
        netlink.tc("add", "netem", device, "2:", delay=middle, jitter=spread, limit=100_000, **parent)
