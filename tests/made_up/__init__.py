"""Two kinds that nobody serves, with parts of every form, in a package of their own: what a new kind may hold.

`Farm` is a parent; `Balancer` names two kinds, has nested, repeated and mapped parts, a oneof, uniqueness, a verb and a
verb without a target. `install()` makes the whole process (Kahuna, kowactl, the gateway) speak their contract, too.
"""

import hashlib
import sys
import tempfile
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import build_hook
from kowa import contract
from kowa.contract.reading import read

PACKAGE = "made_up.v1"
PROGRAM = (sys.executable, "-m", "tests.made_up")  # and which: kahuna, kowactl, gateway or pytest
_PROTO = Path(__file__).parent / "proto"


@cache
def built() -> Path:
    """The folder with its stubs (`made_up/v1/*_pb2.py`) and `descriptors.binpb`, which holds the platform's, too."""
    ours = sorted(_PROTO.rglob("*.proto"))
    digest = hashlib.sha256(b"".join(p.read_bytes() for p in (*ours, contract.DESCRIPTORS))).hexdigest()[:16]
    folder = build_hook.ROOT / ".build" / f"made_up-{digest}"
    if not folder.exists():
        folder.parent.mkdir(exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=folder.parent))
        _compile(ours, made)
        try:
            made.rename(folder)
        except OSError:  # somebody else was quicker
            assert folder.exists()
    return folder


@cache
def made_up() -> contract.Contract:
    """The platform's contract with the made-up kinds in it. Their stubs can be imported from then on."""
    sys.path.append(str(built()))
    descriptors = type(contract.file_set()).FromString((built() / "descriptors.binpb").read_bytes())
    return read(descriptors.file, (*contract.PACKAGES, PACKAGE))


def install() -> None:
    """Makes the made-up kinds part of this process's contract. To be called before anything else reads the contract."""
    vars(contract).update(attributes())
    sys.path.append(str(built()))


def attributes() -> dict[str, Any]:
    """What `kowa.contract` holds in such a process."""
    packages = (*(package for package in contract.PACKAGES if package != PACKAGE), PACKAGE)
    return {"DESCRIPTORS": built() / "descriptors.binpb", "PACKAGES": packages, "load": made_up}


def _compile(protos: list[Path], folder: Path) -> None:
    from grpc_tools import protoc

    build_hook.lay_down_third_party()
    own = [str(path.relative_to(_PROTO)) for path in protos]
    platform = [str(path.relative_to(build_hook.PROTO)) for path in build_hook.PROTO.rglob("*.proto")]
    places = _PROTO, build_hook.PROTO, build_hook.THIRD_PARTY, files("grpc_tools") / "_proto"
    words = ["protoc", *(f"-I{place}" for place in places)]
    assert protoc.main([*words, f"--python_out={folder}", *own]) == 0
    described = [f"--descriptor_set_out={folder / 'descriptors.binpb'}", "--include_imports", "--include_source_info"]
    assert protoc.main([*words, *described, *own, *platform]) == 0
