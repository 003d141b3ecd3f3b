"""Where Ollama listens, and whether a proxy of the environment may stand before it."""

from __future__ import annotations

import ipaddress
import os
from urllib.parse import urlsplit


def ollama_host() -> str:
    """`$OLLAMA_HOST` as Ollama reads it: a scheme and a port are optional, and 0.0.0.0 is this machine."""
    host = os.environ.get("OLLAMA_HOST", "").strip().strip("\"'") or "127.0.0.1:11434"
    scheme, _, rest = host.rpartition("://")
    name, colon, port = rest.strip("/").rpartition(":")
    if not colon:
        name, port = port, {"http": "80", "https": "443"}.get(scheme, "11434")
    return f"{scheme or 'http'}://{'127.0.0.1' if name in ('', '0.0.0.0') else name}:{port}"


def is_loopback(url: str) -> bool:
    """This machine, which is reached directly, whatever proxy the environment names."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
