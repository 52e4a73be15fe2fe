"""Requests a metadata token: prints the response status, the MACs that answered ARP, and the TTLs."""

import contextlib
import json
import socket
import sys

SERVICE = "169.254.169.254"
REQUEST = b"PUT /latest/api/token HTTP/1.0\r\nX-metadata-token-ttl-seconds: 60\r\n\r\n"
IP, ARP = 0x0800, 0x0806


def main(timeout: float) -> None:
    response, arp_replies, ttls = b"", [], set()
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as sniffer:
        sniffer.setblocking(False)
        with contextlib.suppress(OSError), socket.create_connection((SERVICE, 80), timeout) as connection:
            connection.sendall(REQUEST)
            response = connection.recv(4096)
        with contextlib.suppress(BlockingIOError):
            while True:
                frame = sniffer.recv(2048)
                kind = int.from_bytes(frame[12:14], "big")
                if kind == ARP and frame[21] == 2 and frame[28:32] == socket.inet_aton(SERVICE):
                    arp_replies.append(frame[22:28].hex(":"))
                if kind == IP and frame[26:30] == socket.inet_aton(SERVICE):
                    ttls.add(frame[22])
    status = response.decode().split("\r\n")[0]
    print(json.dumps({"status": status, "arp": arp_replies, "ttl": sorted(ttls)}))  # noqa: T201


if __name__ == "__main__":
    main(float(sys.argv[1]))
