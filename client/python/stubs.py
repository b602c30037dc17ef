"""Makes the Python stubs of `pointsman.v1` out of the .proto files: `python client/python/stubs.py OUT_DIR`.

Needs grpcio-tools (see requirements.txt). Put OUT_DIR on PYTHONPATH, then `from pointsman.v1 import router_pb2`.
"""

import sys
from importlib import resources
from pathlib import Path

from grpc_tools import protoc

PROTO = Path(__file__).resolve().parents[2] / "proto"


def main() -> int:
    if len(sys.argv) != 2:
        print(__doc__.strip(), file=sys.stderr)
        return 64
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    files = sorted(str(file) for file in (PROTO / "pointsman" / "v1").glob("*.proto"))
    google = resources.files("grpc_tools") / "_proto"
    into = [f"--python_out={out}", f"--grpc_python_out={out}"]
    return protoc.main(["protoc", f"-I{PROTO}", f"-I{google}", *into, *files])


if __name__ == "__main__":
    sys.exit(main())
