"""The files of a Debian 12: its packages, set up as a cloud image is."""

import subprocess
from pathlib import Path

SUITE = "bookworm"
LIMIT_S = 600
_PACKAGES = (
    "linux-image-cloud-amd64",
    "systemd-sysv",
    "udev",
    "dbus",  # logind, and with it the power button
    "cloud-init",
    "cloud-guest-utils",  # growpart
    "fdisk",
    "e2fsprogs",
    "netbase",
    "iproute2",
    "openssh-server",
    "sudo",
)
_LEFT_OUT = ("man", "doc", "locale", "info")
# Of what cloud-init can do, what the test looks at: all of it would take twice as long under emulation.
_CLOUD_INIT = """\
cloud_init_modules: [seed_random, write-files, growpart, resizefs, set_hostname, update_etc_hosts, users-groups, ssh]
cloud_config_modules: [runcmd]
cloud_final_modules: [scripts-user, final-message]
ssh_genkeytypes: [ed25519]
"""
_FILES = {
    "etc/fstab": "/dev/vda2 / ext4 defaults 0 1\n",
    "etc/hostname": "debian\n",
    "etc/machine-id": "",
    "etc/cloud/cloud.cfg.d/95_quick.cfg": _CLOUD_INIT,
}
_HOOKS = (
    'chroot "$1" systemctl --quiet enable systemd-networkd',
    'chroot "$1" systemctl --quiet disable apt-daily.timer apt-daily-upgrade.timer fstrim.timer e2scrub_all.timer',
    'chroot "$1" systemctl --quiet mask systemd-networkd-wait-online',
)


def make(work: Path) -> Path:
    """The tree below `work`. Raises CalledProcessError with what mmdebstrap said."""
    root = work / "tree"
    command = ["mmdebstrap", "--quiet", "--mode=root", "--variant=minbase", f"--include={','.join(_PACKAGES)}"]
    command += ['--aptopt=Apt::Install-Recommends "false"', "--dpkgopt=force-unsafe-io"]
    command += [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in _LEFT_OUT]
    command += [f"--customize-hook={hook}" for hook in _HOOKS]
    subprocess.run([*command, SUITE, str(root)], check=True, timeout=LIMIT_S, stdin=subprocess.DEVNULL)
    for name, text in _FILES.items():
        (root / name).write_text(text)
    return root
