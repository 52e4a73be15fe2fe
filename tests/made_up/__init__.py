"""Two kinds made up for tests, in their own package, with parts of every form that a new kind may have.

`Farm` is a parent; `Balancer` references two kinds, has nested, repeated and mapped parts, a oneof, unique fields, a
verb and a verb without a target. `install()` adds them to the contract of the whole process (Kahuna, kowactl, gateway).
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
PROGRAM = (sys.executable, "-m", "tests.made_up")  # append kahuna, kowactl, gateway or pytest
_PROTO = Path(__file__).parent / "proto"


@cache
def build_stubs() -> Path:
    """Builds stubs (`made_up/v1/*_pb2.py`) and `descriptors.binpb`, including the platform's; returns the folder."""
    protos = sorted(_PROTO.rglob("*.proto"))
    digest = hashlib.sha256(b"".join(p.read_bytes() for p in (*protos, contract.DESCRIPTORS))).hexdigest()[:16]
    folder = build_hook.ROOT / ".build" / f"made_up-{digest}"
    if not folder.exists():
        folder.parent.mkdir(exist_ok=True)
        building = Path(tempfile.mkdtemp(dir=folder.parent))
        _compile(protos, building)
        try:
            building.rename(folder)
        except OSError:  # another process was faster
            assert folder.exists()
    return folder


@cache
def made_up() -> contract.Contract:
    """The platform's contract with the made-up kinds; makes their stubs importable."""
    sys.path.append(str(build_stubs()))
    descriptors = type(contract.file_set()).FromString((build_stubs() / "descriptors.binpb").read_bytes())
    return read(descriptors.file, (*contract.PACKAGES, PACKAGE))


def install() -> None:
    """Adds the made-up kinds to this process's contract. Call it before anything reads the contract."""
    vars(contract).update(attributes())
    sys.path.append(str(build_stubs()))


def attributes() -> dict[str, Any]:
    """The attributes of `kowa.contract` with the made-up kinds."""
    packages = (*(package for package in contract.PACKAGES if package != PACKAGE), PACKAGE)
    return {"DESCRIPTORS": build_stubs() / "descriptors.binpb", "PACKAGES": packages, "load": made_up}


def _compile(protos: list[Path], folder: Path) -> None:
    from grpc_tools import protoc

    build_hook.copy_third_party()
    names = [str(path.relative_to(_PROTO)) for path in protos]
    platform = [str(path.relative_to(build_hook.PROTO)) for path in build_hook.PROTO.rglob("*.proto")]
    import_paths = _PROTO, build_hook.PROTO, build_hook.THIRD_PARTY, files("grpc_tools") / "_proto"
    command = ["protoc", *(f"-I{path}" for path in import_paths)]
    assert protoc.main([*command, f"--python_out={folder}", *names]) == 0
    descriptor_options = [
        f"--descriptor_set_out={folder / 'descriptors.binpb'}",
        "--include_imports",
        "--include_source_info",
    ]
    assert protoc.main([*command, *descriptor_options, *names, *platform]) == 0
