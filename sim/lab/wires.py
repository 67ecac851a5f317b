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
    """A network namespace without a name: `descriptor` keeps it, `netlink` speaks to the kernel inside it."""

    descriptor: int
    netlink: Any

    def enter(self) -> None:
        """Move this process into it."""
        setns(self.descriptor, CLONE_NEWNET)

    def close(self) -> None:
        self.netlink.close()
        os.close(self.descriptor)

    def index(self, device: str) -> int:
        """The kernel's number of a device."""
        (number,) = self.netlink.link_lookup(ifname=device)
        return int(number)

    def set_up(self, device: int, is_up: bool) -> None:
        self.netlink.link("set", index=device, state="up" if is_up else "down")


@contextmanager
def _away_and_back() -> Iterator[None]:
    """Whatever namespace this process is in afterwards, it returns to its own."""
    home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield
    finally:
        setns(home, CLONE_NEWNET)
        os.close(home)


def open_namespace() -> Namespace:
    """Make one. A netlink socket belongs to the namespace it was opened in, so this process can return."""
    from pyroute2 import IPRoute

    with _away_and_back():
        try:
            unshare(CLONE_NEWNET)
        except OSError as error:
            raise LabError(f"no network namespace can be made here: {error.strerror}") from error
        with suppress(OSError):  # a machine without IPv6 has nothing to switch off
            Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").write_text("1")
        descriptor = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        return Namespace(descriptor, IPRoute())


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
            self._build()
            self.has_netem = self._try_netem()
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

    def _build(self) -> None:
        hub = self._hub.netlink
        hub.link("add", ifname=BRIDGE, kind="bridge")
        bridge = self._hub.index(BRIDGE)
        self._hub.set_up(bridge, True)
        for node in range(self.count):
            namespace = open_namespace()
            self._nodes.append(namespace)
            end = {"ifname": DEVICE, "net_ns_fd": namespace.descriptor}
            hub.link("add", ifname=port_name(node), kind="veth", peer=end)
            port, device = self._hub.index(port_name(node)), namespace.index(DEVICE)
            hub.link("set", index=port, master=bridge, state="up")
            namespace.netlink.addr("add", index=device, address=address_of(node), prefixlen=PREFIX_BITS)
            namespace.set_up(namespace.index("lo"), True)
            namespace.set_up(device, True)
            self._ports.append(port)
            self._devices.append(device)

    # -- faults ------------------------------------------------------------------------------------

    def apply(self, links: Links) -> None:
        """Make the network what `links` says; what stays as it is is not touched."""
        for node in range(self.count):
            if links.is_down(node) != self._links.is_down(node):
                self._hub.set_up(self._ports[node], not links.is_down(node))
            if links.shape(node) != self._links.shape(node):
                self._shape(node, links.shape(node))
        if ruleset(links, port_name) != ruleset(self._links, port_name):
            self._load_rules(links)
        self._links = links

    def _load_rules(self, links: Links) -> None:
        """All rules at once: what was there before is gone in the same instant."""
        with _away_and_back():
            self._hub.enter()
            loaded = subprocess.run(
                ["nft", "-f", "-"],
                input=ruleset(links, port_name),
                capture_output=True,
                text=True,
                check=False,
            )
        if loaded.returncode:
            raise LabError(f"nft refuses the lab's rules: {loaded.stderr.strip()}")

    def _shape(self, node: int, shape: Shape) -> None:
        """Queues at both ends of a node's wire, so that they hold in both directions."""
        for namespace, device in ((self._hub, self._ports[node]), (self._nodes[node], self._devices[node])):
            _shape_device(namespace.netlink, device, shape, self.has_netem)

    def _try_netem(self) -> bool:
        from pyroute2.netlink.exceptions import NetlinkError

        try:
            self._hub.netlink.tc("add", "netem", self._ports[0], "1:", delay=0)
        except NetlinkError as error:
            if error.code in (errno.ENOENT, errno.EOPNOTSUPP):
                return False
            raise
        self._hub.netlink.tc("del", index=self._ports[0], root=True)
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
