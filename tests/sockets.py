"""Which addresses a process listens on, from Linux's lists of sockets (proc(5))."""

from __future__ import annotations

import contextlib
import ipaddress
import os
from pathlib import Path

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def listening(pid: int) -> list[Address]:
    """The addresses of a process's listening TCP sockets, one for each."""
    places = _places()
    found = []
    with contextlib.suppress(OSError):
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError, KeyError):
                found.append(places[os.readlink(descriptor)])
    return found


def family(pid: int) -> dict[int, str]:
    """A process and all that it started, with the names of their programs."""
    parents, names = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                name, _, rest = (entry / "stat").read_text().partition("(")[2].rpartition(")")
                parents[int(entry.name)] = int(rest.split()[1])
                names[int(entry.name)] = name
    found = {pid: names[pid]}
    while more := {child for child, parent in parents.items() if parent in found} - found.keys():
        found.update({child: names[child] for child in more})
    return found


def _places() -> dict[str, Address]:
    """The address of each listening socket, by what a descriptor of it is linked to."""
    found: dict[str, Address] = {}
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A":
                found[f"socket:[{fields[9]}]"] = _address(fields[1].partition(":")[0])
    return found


def _address(text: str) -> Address:
    """An address as Linux writes it: words of 32 bits in the machine's order."""
    words = [bytes.fromhex(text[i : i + 8])[::-1] for i in range(0, len(text), 8)]
    address = ipaddress.ip_address(b"".join(words))
    return getattr(address, "ipv4_mapped", None) or address
