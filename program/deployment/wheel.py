"""citeqa as a wheel, made of what is installed here, a checkout or a release: what an app installs."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from collections.abc import Iterator
from importlib import metadata, resources
from pathlib import Path

PACKAGES = ("program", "retrieval", "eval")
_SAME_TIME = (2020, 1, 1, 0, 0, 0)
_LEFT_OUT = (".pyc", ".pyo")


def write_wheel(folder: Path) -> Path:
    """Write the wheel into a folder; the same code gives the same file.

    Its version ends in a hash of the code, so that an installer sees whether it is another.
    """
    files = dict(_files())
    digest = hashlib.blake2b(digest_size=6)
    for name, content in files.items():
        digest.update(name.encode() + b"\0" + hashlib.blake2b(content).digest())
    distribution = metadata.distribution("citeqa")
    version = f"{distribution.version.partition('+')[0]}+{digest.hexdigest()}"
    info = f"citeqa-{version}.dist-info"
    described = distribution.read_text("METADATA") or ""
    lines = [
        f"Version: {version}" if line.startswith("Version: ") else line for line in described.splitlines()
    ]
    files[f"{info}/METADATA"] = "\n".join([*lines, ""]).encode()
    files[f"{info}/WHEEL"] = (
        b"Wheel-Version: 1.0\nGenerator: citeqa\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    )
    files[f"{info}/entry_points.txt"] = b"[console_scripts]\nciteqa = program.cli:main\n"
    record = [f"{name},sha256={_sha256(content)},{len(content)}" for name, content in files.items()]
    files[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,", ""]).encode()
    wheel = folder / f"citeqa-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name, _SAME_TIME), content, zipfile.ZIP_DEFLATED)
    return wheel


def _files() -> Iterator[tuple[str, bytes]]:
    for package in PACKAGES:
        root = Path(str(resources.files(package)))
        for file in sorted(root.rglob("*")):
            if file.is_file() and file.suffix not in _LEFT_OUT:
                yield f"{package}/{file.relative_to(root).as_posix()}", file.read_bytes()


def _sha256(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
