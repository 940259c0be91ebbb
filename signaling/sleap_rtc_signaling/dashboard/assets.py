"""The style sheet and the scripts, under names that change with what they hold.

Read once, served from memory, kept by browsers for good. Nothing else of the folder is
served. Called by the site.
"""

import hashlib
from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

__all__ = ["Assets"]

_TYPES: Final = {
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
_DIGEST_CHARS: Final = 12


class Assets:
    """The files of a folder.

    Args:
        folder: where they lie.
    """

    def __init__(self, folder: Path) -> None:
        self._files: dict[str, tuple[bytes, str]] = {}
        self._paths: dict[str, str] = {}
        for path in sorted(folder.iterdir()):
            if path.suffix not in _TYPES:
                continue
            data = path.read_bytes()
            digest = hashlib.sha256(data).hexdigest()[:_DIGEST_CHARS]
            name = f"{digest}-{path.name}"
            self._files[name] = data, _TYPES[path.suffix]
            self._paths[path.name] = name

    def path(self, name: str) -> str:
        """Return the address of a file."""
        return f"/dashboard/static/{self._paths[name]}"

    async def serve(self, request: Request) -> Response:
        """Answer with a file."""
        found = self._files.get(request.path_params["name"])
        if found is None:
            return Response("There is no such file.", 404, media_type="text/plain")
        data, kind = found
        return Response(
            data,
            media_type=kind,
            headers={
                "cache-control": "public, max-age=31536000, immutable",
                "cross-origin-resource-policy": "same-origin",
                "x-content-type-options": "nosniff",
            },
        )
