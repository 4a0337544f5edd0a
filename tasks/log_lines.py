"""The log of a flow run in the Prefect UI: a server that was away has it soon after it is back.

Prefect itself tries again after 2, 4, 8 … 256 seconds: of a run that ends meanwhile the UI shows no
line of the last minutes.

    keep_log_lines()
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

from prefect.logging.handlers import APILogWorker, set_api_log_sink
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from tasks.shown import is_refused

_AGAIN_S = 3.0
_PATIENCE_S = 600.0


class KeptLines(APILogWorker):
    """Sends lines in batches; one that the server does not take is sent again, before any other."""

    _away_since: float | None = None

    async def _handle_batch(self, items: list[dict[str, Any]]) -> None:
        while (error := await self._send(items)) is not None:
            now = time.monotonic()
            self._away_since = self._away_since or now
            if is_refused(error) or now > self._away_since + _PATIENCE_S:
                # Not by a logger: the line would come back to here.
                said = f"Prefect has not got {len(items)} lines of the log: {error}"
                print(said, file=sys.stderr)
                return
            await asyncio.sleep(_AGAIN_S)
        self._away_since = None

    async def _send(self, items: list[dict[str, Any]]) -> Exception | None:
        """Try once; return what went wrong."""
        try:
            with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):
                await self._client.create_logs(items)
        except Exception as error:  # noqa: BLE001  # a log that cannot be shown may end no run
            return error
        return None


def keep_log_lines() -> None:
    """From now on let what this process logs of a flow run reach a server that was away."""
    set_api_log_sink(lambda line: KeptLines.instance().send(line))
