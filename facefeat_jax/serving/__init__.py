"""Answers over HTTP: a trained model behind `POST /v1/predict`, with a page for people at `/`."""

from typing import TYPE_CHECKING

from facefeat_jax.system import public_names

if TYPE_CHECKING:
    from facefeat_jax.serving.app import create_app as create_app

public_names.attach(__name__)
