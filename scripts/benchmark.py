"""Measures this project beside PyTorch: python scripts/benchmark.py run|report|pack"""

import runpy
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).with_name("lab"))
    runpy.run_path(f"{sys.path[0]}/benchmark.py", run_name="__main__")
