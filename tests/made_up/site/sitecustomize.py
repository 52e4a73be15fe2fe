"""Every Python that starts with this folder on its path speaks the made-up kinds, too: Kahuna, kowactl, the gateway."""

from tests.made_up import install

install()
