"""`facefeat push`: a run on the Hugging Face Hub, as `Predictor.from_hub` takes it."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

from facefeat_jax.exporting.conversion import export
from facefeat_jax.runs.run_folder import MODEL_CARD
from facefeat_jax.system.errors import UserError
from weights_conversion.hub import HUB_FILE, hub_reason, quiet_hub, require_hub_name


def push(run: Path, name: str, *, private: bool = False) -> str:
    """Writes a run's newest checkpoint and its model card to the Hub, in one commit; returns that commit.

    `model.safetensors` holds the weights, with the spec, the calibration and what the training pictures are like in its
    metadata; `README.md` is the card, with its metadata block.

    Args:
      run: the run folder; it has been evaluated.
      name: `owner/name`; made if it is not there.
      private: whether a new one is private.

    Raises:
      UserError: not a run, it has no card, or the Hub does not take it.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    require_hub_name(name)
    card = run / MODEL_CARD
    if not card.is_file():
        raise UserError(f"{run} has no {MODEL_CARD}, which a published model needs; facefeat evaluate {run} writes it")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / HUB_FILE
        export(run, file)
        parts = [
            CommitOperationAdd(HUB_FILE, str(file)),
            CommitOperationAdd("README.md", io.BytesIO(card.read_bytes())),
        ]
        try:
            with quiet_hub():
                api = HfApi()
                api.create_repo(name, private=private or None, exist_ok=True)
                return api.create_commit(name, parts, commit_message=f"{run.resolve().name}, written by facefeat").oid
        except Exception as error:  # httpx's, the library's own and the system's have no common base
            raise UserError(f"{name} can't be written to the Hub ({hub_reason(error, writing=True)})") from error
