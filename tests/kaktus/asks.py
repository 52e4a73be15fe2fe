"""A machine in a network namespace that asks for a token: prints who answers for the service, how far, and what."""

import contextlib
import json
import socket
import sys

SERVICE = "169.254.169.254"
REQUEST = b"PUT /latest/api/token HTTP/1.0\r\nX-metadata-token-ttl-seconds: 60\r\n\r\n"
IP, ARP = 0x0800, 0x0806


def main(limit: float) -> None:
    told, answers, hops = b"", [], set()
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as ear:
        ear.setblocking(False)
        with contextlib.suppress(OSError), socket.create_connection((SERVICE, 80), limit) as asking:
            asking.sendall(REQUEST)
            told = asking.recv(4096)
        with contextlib.suppress(BlockingIOError):
            while True:
                frame = ear.recv(2048)
                kind = int.from_bytes(frame[12:14], "big")
                if kind == ARP and frame[21] == 2 and frame[28:32] == socket.inet_aton(SERVICE):
                    answers.append(frame[22:28].hex(":"))
                if kind == IP and frame[26:30] == socket.inet_aton(SERVICE):
                    hops.add(frame[22])
    print(json.dumps({"told": told.decode().split("\r\n")[0], "arp": answers, "ttl": sorted(hops)}))  # noqa: T201


if __name__ == "__main__":
    main(float(sys.argv[1]))
