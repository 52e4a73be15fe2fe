"""Makes the Python stubs and the descriptor set from proto/, in place under sdk/kowa. Run by the build, or by hand."""

from __future__ import annotations

import shutil
import sys
from importlib.resources import files
from pathlib import Path

ROOT = Path(__file__).resolve().parent
PROTO = ROOT / "proto"
SDK = ROOT / "sdk"
THIRD_PARTY = ROOT / ".build" / "googleapis"


def generate() -> None:
    """Stubs (`*_pb2.py`, `.pyi`, `*_pb2_grpc.py`) and `descriptors.binpb`, which keeps the comments.

    Exits when a contract is wrong; protoc has printed the reason.
    """
    from grpc_tools import protoc

    copy_third_party()
    contracts = sorted(str(path.relative_to(PROTO)) for path in PROTO.rglob("*.proto"))
    includes = [f"-I{PROTO}", f"-I{THIRD_PARTY}", f"-I{files('grpc_tools') / '_proto'}"]
    outputs = [f"--python_out={SDK}", f"--pyi_out={SDK}", f"--grpc_python_out={SDK}"]
    descriptors = SDK / "kowa" / "descriptors.binpb"
    options = ["--include_imports", "--include_source_info", f"--descriptor_set_out={descriptors}"]
    for stale in SDK.rglob("*_pb2*.py*"):
        stale.unlink()
    if protoc.main(["protoc", *includes, *outputs, *options, *contracts]) != 0:
        sys.exit("build_hook: protoc refused a contract; it says why above")
    drop_positions(descriptors)


def drop_positions(descriptors: Path) -> None:
    """Removes source positions, which are most of the file: every program reads it when it starts."""
    from google.protobuf.descriptor_pb2 import FileDescriptorSet, SourceCodeInfo

    contracts = FileDescriptorSet.FromString(descriptors.read_bytes())
    for file in contracts.file:
        commented = [
            SourceCodeInfo.Location(path=location.path, leading_comments=location.leading_comments)
            for location in file.source_code_info.location
            if location.leading_comments
        ]
        file.source_code_info.CopyFrom(SourceCodeInfo(location=commented))
    descriptors.write_bytes(contracts.SerializeToString())


def copy_third_party() -> None:
    """Copies the annotations that the contracts import to where protoc and buf find them."""
    from google.rpc import status_pb2

    source = Path(status_pb2.__file__).parent.parent
    for package in ("api", "rpc"):
        target = THIRD_PARTY / "google" / package
        target.mkdir(parents=True, exist_ok=True)
        wanted = ("annotations", "http", "field_behavior") if package == "api" else ("error_details", "status", "code")
        for name in wanted:
            original, copy = source / package / f"{name}.proto", target / f"{name}.proto"
            # A copy that is up to date is not written again, since another protoc may be reading it.
            if not copy.exists() or copy.read_bytes() != original.read_bytes():
                shutil.copyfile(original, copy)


try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # run by hand, where only protoc is needed
    pass
else:

    class BuildHook(BuildHookInterface):  # type: ignore[type-arg]
        """What hatch calls before it packs a wheel or an editable install."""

        def initialize(self, version: str, build_data: dict[str, object]) -> None:
            generate()


if __name__ == "__main__":
    generate()
