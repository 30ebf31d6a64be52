"""Makes the pictures anew, where the README shows them. Port 4000 must be free, because it is seen."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from tests.pictures.story import filmed
from tests.support.pages import ROOT
from tests.support.upstreams import running_simulator

COMMAND_LINE = ROOT / "deploy" / "pictures" / "command-line.svg"


async def make() -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with running_simulator() as simulator:
            svg = await filmed(simulator, f"embedded://{folder}/store", Path(folder), port=4000)
    COMMAND_LINE.write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    asyncio.run(make())
