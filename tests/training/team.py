"""Run several command lines one after the other in every process that torchrun starts: `team.py LINES.json`.

Loading torch takes longer than a small training, so many trainings share two processes, and one process group: torchrun
has no second one. After every line the first process prints a line with the exit status, to both streams.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch.distributed as dist
from glraster_cli.main import main

END = "=== ended with"

if __name__ == "__main__":
    dist.init_process_group("gloo")
    dist.init_process_group = lambda *_args, **_options: None
    dist.destroy_process_group = lambda: None
    for arguments in json.loads(Path(sys.argv[1]).read_text()):
        try:
            main(arguments)
        except SystemExit as ended:
            if os.environ["RANK"] == "0":
                for stream in (sys.stdout, sys.stderr):
                    print(END, ended.code or 0, file=stream, flush=True)
