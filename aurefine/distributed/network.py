"""Which network interface leads to the other machines.

gloo would take the one that this machine's own name stands for: in many containers that name cannot be looked up, and Debian lets it stand for
127.0.1.1. No other machine reaches such an address.
"""

from __future__ import annotations

import os
import socket
import struct
import sys

import torch.distributed as dist

from aurefine.distributed.place import Place, machine_name

_CHOSEN = "GLOO_SOCKET_IFNAME"
_LOOPBACK = "lo"
_ANY_PORT = 9  # nothing is sent
_SIOCGIFADDR = 0x8915  # Linux: the address of an interface


def choose_interface(store: dist.Store, place: Place) -> None:
    """Tell gloo the interface, unless the user has (GLOO_SOCKET_IFNAME) or the system is not Linux. Every process calls this."""
    if sys.platform != "linux":
        return
    if place.one_machine:
        os.environ.setdefault(_CHOSEN, _LOOPBACK)
        return
    mine = own_address(place.host)
    store.set(f"address/{place.rank}", f"{mine} {machine_name()}")
    every = [store.get(f"address/{rank}").decode().split() for rank in range(place.size)]
    if _is_local(mine):  # the first process's machine: as the others see it
        mine = next((own_address(theirs) for theirs, machine in every if machine != machine_name() and not _is_local(theirs)), mine)
    name = interface_of(mine)
    if name:
        os.environ.setdefault(_CHOSEN, name)


def own_address(host: str) -> str:
    """This machine's IPv4 address on the way to another one; that of the loopback interface where there is no way."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((host, _ANY_PORT))
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])


def interface_of(address: str) -> str:
    """The name of the interface with this IPv4 address, "" where there is none."""
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        for _, name in socket.if_nameindex():
            try:
                found = fcntl.ioctl(asked.fileno(), _SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
            except OSError:  # one without an address
                continue
            if socket.inet_ntoa(found[20:24]) == address:
                return name
    return ""


def _is_local(address: str) -> bool:
    return address.startswith("127.")
