"""Makes docs/facefeat_jax.ipynb of docs/notebook.py, without outputs: python scripts/build_notebook.py [--check]

With --check nothing is written; exits with 1 where the notebook is not the script's.
"""

import json
import sys
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parents[1] / "docs"
SCRIPT = DOCS / "notebook.py"
NOTEBOOK = DOCS / "facefeat_jax.ipynb"


def built() -> str:
    """Returns the notebook that the script makes: the same text at every call, whatever the version of jupytext."""
    import jupytext

    notebook: dict[str, Any] = json.loads(jupytext.writes(jupytext.read(SCRIPT), fmt="ipynb"))
    # The script's header (settings of tools) comes as a raw cell.
    notebook["cells"] = [cell for cell in notebook["cells"] if cell["cell_type"] != "raw"]
    for number, cell in enumerate(notebook["cells"]):
        # jupytext throws them anew each time.
        cell["id"] = f"cell-{number:02}"
        cell["metadata"] = {}
    notebook["metadata"] = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
        "colab": {"provenance": []},
        "accelerator": "GPU",
    }
    notebook |= {"nbformat": 4, "nbformat_minor": 5}
    return json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def main() -> int:
    if sys.argv[1:] not in ([], ["--check"]):
        sys.exit(__doc__)
    if sys.argv[1:] == ["--check"]:
        if NOTEBOOK.read_text(encoding="utf-8") != built():
            print(f"{NOTEBOOK.name} is not what {SCRIPT.name} makes; run: make notebook", file=sys.stderr)
            return 1
        return 0
    NOTEBOOK.write_text(built(), encoding="utf-8")
    print(NOTEBOOK)
    return 0


if __name__ == "__main__":
    sys.exit(main())
