# ---
# # ruff: noqa: E402
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Gender, glasses and shirt colour from pictures, in JAX
#
# One ResNet18 turns a picture into features, and three small heads predict *gender* (two classes), *glasses* (with or
# without) and the colour of the *shirt* (eight classes). This notebook goes through the whole job: data, training, loss
# curves, results and predictions.
#
# It uses **drawn pictures** that the project makes itself, so you don't need to download anything, and trains from
# random weights. This takes about five minutes on two CPU cores, and less on a GPU (in Colab: *Runtime > Change
# runtime type*). A good score here shows that the system works, and says nothing about people. The last section has the
# commands for the real data sets.

# %% [markdown]
# ## Set-up

# %%
import importlib
import importlib.util
import shutil
import subprocess
import sys

# Leave this empty to install the released package, or name a checkout: "git+ADDRESS", "file:///FOLDER".
CHECKOUT = ""

if importlib.util.find_spec("facefeat_jax") is None:
    extra = "[cuda]" if shutil.which("nvidia-smi") else ""
    requirement = f"facefeat-jax{extra}" + (f" @ {CHECKOUT}" if CHECKOUT else "")
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", requirement], check=True)
    importlib.invalidate_caches()

# %%
import os
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np

import facefeat_jax
from facefeat_jax import avatars
from facefeat_jax.commands import train
from facefeat_jax.config import load_recipe
from facefeat_jax.data.pixels import PixelFormat
from facefeat_jax.data.prepare import prepare
from facefeat_jax.reporting.curves import SERIES_COLORS, draw_training_loss, draw_validation, read_curves
from facefeat_jax.reporting.samples import training_samples
from facefeat_jax.reporting.table import results_table
from facefeat_jax.runs.run_folder import REPORT
from facefeat_jax.system.runtime import start_up
from facefeat_jax.training.data import open_data

start_up()
FOLDER = Path("facefeat_notebook")  # all output goes here
SMOKE = bool(os.environ.get("FACEFEAT_SMOKE"))  # the project's tests run the notebook at a tiny size

print(f"facefeat_jax {facefeat_jax.__version__} on {jax.devices()[0].device_kind}")

# %% [markdown]
# ## Data
#
# `prepare` draws the pictures (for other sources it reads the download), checks that each decodes, and writes them with
# their labels. A second call reuses them.

# %%
print(prepare("avatars", None, FOLDER / "data"))

# %% [markdown]
# Here are some training pictures as the model sees them. Every picture has all three labels. Hair, hats, earrings and
# clothes are drawn at random, independently of the gender. A jacket may cover the shirt. Glasses may sit in the hair,
# where they don't count.

# %%
config = load_recipe("avatars").replace(data_dir=FOLDER / "data", run=FOLDER / "run", smoke=SMOKE, overwrite=True)
data = open_data(config.data, config.batches, seed=config.seed)
classes = data.classes
samples = training_samples(data.training, classes, pixels=PixelFormat(config.data.image_size, config.data.decode))

figure, axes = plt.subplots(3, 8, figsize=(13, 6.2), layout="constrained")
for ax, sample in zip(axes.flat, samples, strict=False):
    ax.imshow(sample.image)
    ax.set_title(sample.caption.replace(", ", "\n"), fontsize=8)
for ax in axes.flat:
    ax.axis("off")
plt.show()

# %% [markdown]
# ## Training
#
# A recipe is a frozen dataclass of groups such as `config.data`; change any field with `replace`. `avatars` trains all
# heads together (`schedule="mixed"`) from random weights.

# %%
for name in ("trunk", "image_size", "batch_size", "epochs", "learning_rate", "schedule", "weights"):
    print(f"{name:15} {config.flat()[name]}")

# %%
results = train(config)

# %% [markdown]
# ## Loss curves
#
# The faint line is the loss of each step, the strong line its moving average. Dotted lines mark epochs.

# %%
curves = read_curves(config.run)
colors = [light for light, _ in SERIES_COLORS]

figure, axes = plt.subplots(1, len(curves), figsize=(13, 3.4), layout="constrained", squeeze=False)
for ax, (task, curve), color in zip(axes.flat, curves.items(), colors, strict=False):
    draw_training_loss(ax, curve, color, "black")
    ax.set_title(f"{task}: training loss")
plt.show()

# %%
figure, axes = plt.subplots(1, 2, figsize=(10, 3.4), layout="constrained")
for ax, name in zip(axes, ("accuracy", "loss"), strict=True):
    draw_validation(ax, curves, name, results["heads"], colors, "black")
    ax.set_title(f"validation {name}")
axes[0].legend(frameon=False)
plt.show()

# %% [markdown]
# ## Results
#
# These results are for the saved weights, on pictures that were not trained on.

# %%
print(results_table(results, sequential=config.batches.schedule == "sequential"))
print(f"\ntrained in {results['seconds']:.0f} s")

# %% [markdown]
# Training also wrote a report with these results, the configuration and the environment:

# %%
print(config.run / REPORT)

# %% [markdown]
# ## Predictions
#
# A `Predictor` loads a run: its weights, class names and preprocessing. It takes files, PIL images or uint8 arrays. The
# pictures below are drawn from another seed, so they are in neither split. Bars show the probability of each class; the
# dark bar is the true label.

# %%
unseen = [avatars.draw(seed=20_000, index=index) for index in range(4)]
predictor = facefeat_jax.Predictor.from_run(config.run)
predictions = predictor.predict([avatar.image for avatar in unseen])

for avatar, prediction in zip(unseen, predictions, strict=True):
    said = "  ".join(f"{task}: {head.label} {head.probability:.3f}" for task, head in prediction.heads.items())
    print(f"{said}  (true: {', '.join(avatar.labels.values())})")

# %%
figure, axes = plt.subplots(
    len(unseen), 1 + len(classes), figsize=(11, 2.5 * len(unseen)), layout="constrained", squeeze=False
)
for row, avatar, prediction in zip(axes, unseen, predictions, strict=True):
    row[0].imshow(np.asarray(avatar.image))
    row[0].axis("off")
    for ax, (task, head) in zip(row[1:], prediction.heads.items(), strict=True):
        names = list(head.probabilities)
        shades = ["#00456c" if name == avatar.labels[task] else "#8fc3e2" for name in names]
        ax.barh(names, list(head.probabilities.values()), color=shades)
        ax.set(xlim=(0, 1), xticks=(0, 0.5, 1), title=f"{task}: {head.label}")
        ax.invert_yaxis()
        ax.spines[["top", "right"]].set_visible(False)
plt.show()

# %% [markdown]
# ## On real pictures
#
# The original PyTorch notebook trained on three public data sets. Download them yourself, under their own terms
# (`facefeat prepare NAME` without `--from` says what to download, from where, and where to put it). Then run:
#
# ```
# facefeat prepare fairface --from DIR
# facefeat prepare glasses --from DIR
# facefeat prepare apparel --from DIR
# facefeat train baseline
# facefeat evaluate runs/baseline
# facefeat predict runs/baseline photo.jpg
# ```
#
# `baseline` does exactly what the original did: torchvision's ImageNet weights, 224 px, one head after the other in
# each epoch. It prints each head's results right after its own pass, as the original did, and beside them those of the
# final weights, which the original never measured.
#
# Or in Python:
#
# ```python
# train(load_recipe("baseline"))
# ```
#
# Before you use a trained model on people: the gender head predicts the label that a data set gives to an appearance.
# It does not know who a person is.
