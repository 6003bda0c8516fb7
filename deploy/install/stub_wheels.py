"""Write metadata-only wheels that stand in for distributions the CPU environment must not download.

A stub has a name and a version and no modules. Why each is needed, and why this way was chosen over
`--no-deps`, is written in docs/decisions/0001-one-cpu-environment.md.

Usage: python stub_wheels.py DIRECTORY
"""

import base64
import hashlib
import sys
import zipfile
from pathlib import Path

STUBS = {
    "torchvision": "0.28.0+stub",
    "torchaudio": "2.11.0+stub",
    "torchcodec": "0.14.0+stub",
    "vllm": "0.32.0+cpu.stub",
}
# ZIP cannot hold a date before 1980; a fixed one makes the wheels reproducible.
EPOCH = (1980, 1, 1, 0, 0, 0)


def write_stub(directory: Path, name: str, version: str) -> Path:
    """The path of the wheel written: METADATA, WHEEL and RECORD, no modules."""
    info = f"{name}-{version}.dist-info"
    files = {
        f"{info}/METADATA": (
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
            "Summary: metadata only; see malmoi docs/decisions/0001-one-cpu-environment.md\n"
        ),
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: malmoi\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = [f"{path},sha256={digest(text)},{len(text.encode())}" for path, text in files.items()]
    files[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,"]) + "\n"
    wheel = directory / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in files.items():
            archive.writestr(zipfile.ZipInfo(path, EPOCH), text)
    return wheel


def digest(text: str) -> str:
    """SHA-256 as RECORD holds it: base64 for URLs, without padding."""
    raw = hashlib.sha256(text.encode()).digest()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    for stub_name, stub_version in STUBS.items():
        write_stub(target, stub_name, stub_version)
