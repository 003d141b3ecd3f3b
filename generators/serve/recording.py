"""What clients send and what they are answered, kept for `doit capture`: one JSON line an answered request.

The file holds people's words. It is readable by its owner alone, and it belongs under build/, which git ignores.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from generators.errors import UserError
from generators.files import to_json


class Recorder:
    """Appends to `path`. Raises UserError when it cannot be written, at the start or later."""

    def __init__(self, path: Path):
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600))
        except OSError as error:
            raise UserError(f"{path} cannot be written ({error.strerror}); choose another file with --record") from error

    def keep(self, endpoint: str, request: Any, answer: str, ended: str) -> None:
        """request: the decoded body. ended: empty where the client was gone before the end."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        row = {"time": now, "endpoint": endpoint, "request": request, "answer": answer, "ended": ended}
        try:
            with self.path.open("a", encoding="utf-8") as out:
                out.write(to_json(row) + "\n")
        except OSError as error:
            raise UserError(f"{self.path} cannot be written any more ({error.strerror})") from error
