"""Prints what an image is made of, in MB: docker run --rm -i --entrypoint python IMAGE - < images/contents.py"""

import os
import sys
from collections import Counter
from pathlib import Path

SHOWN = 12
OTHERS = ("proc", "sys", "dev", "tmp")


def size(folder: Path) -> int:
    """Bytes on disk below a folder; what this user may not read counts nothing."""
    total = 0
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if place != "/" or name not in OTHERS]
        total += sum(Path(place, name).lstat().st_blocks * 512 for name in files)
    return total


packages = next(Path(path) for path in sys.path if path.endswith("site-packages"))
parts: Counter[str] = Counter()
for entry in packages.iterdir():
    # A package's compiled libraries lie beside it in NAME.libs.
    parts[entry.name.removesuffix(".libs")] += size(entry) if entry.is_dir() else entry.lstat().st_size
whole = size(Path("/"))
print(f"{whole / 1e6:7.0f} MB in all, of which")
for name, count in parts.most_common(SHOWN):
    print(f"{count / 1e6:7.0f} MB {name}")
rest = parts.total() - sum(count for _, count in parts.most_common(SHOWN))
print(f"{rest / 1e6:7.0f} MB {len(parts) - SHOWN} smaller packages")
print(f"{(whole - parts.total()) / 1e6:7.0f} MB Debian, Python, and what was compiled")
