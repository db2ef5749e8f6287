"""Compares this project with PyTorch: python scripts/compare_with_pytorch.py exact|train"""

import runpy
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).with_name("lab"))
    runpy.run_path(f"{sys.path[0]}/compare_with_pytorch.py", run_name="__main__")
