"""The data sets: what each labels, where it comes from, under which terms, and how the download lies on disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from facefeat_jax.data.trees import Tree, open_tree
from facefeat_jax.errors import UserError, unknown


@dataclass(frozen=True)
class Source:
    """One data set.

    Attributes:
      name: as it is called on the command line.
      version: of the prepared form, raised when the selection or what a record holds changes; see `version_of`.
      tasks: the tasks that it labels.
      groups: what else is known of a picture, as text; blank where unknown.
      description: one paragraph for the prepared data set.
      downloads: what to download, and from where; empty where the project draws the pictures itself.
      homepage: where its makers describe it.
      terms: under which it may be used.
      layout: how the download must look.
      citation: BibTeX, or empty.
    """

    name: str
    version: str
    tasks: tuple[str, ...]
    groups: tuple[str, ...]
    description: str
    downloads: tuple[tuple[str, str], ...]
    homepage: str
    terms: str
    layout: str
    citation: str = ""

    @property
    def is_drawn(self) -> bool:
        """Whether the project draws the pictures itself, so that nothing has to be downloaded."""
        return not self.downloads


SOURCES: dict[str, Source] = {
    source.name: source
    for source in (
        Source(
            name="avatars",
            version="",  # that of the drawing code
            tasks=("gender", "glasses", "shirt"),
            groups=(),  # whatever the drawing code names
            description=(
                "Drawn heads and shoulders, made by this project's own code from a seed, with all three labels on "
                "every picture. A test of the system, to be learned in minutes. No person is depicted and nothing was "
                "measured on people: what a model scores here says nothing about how it does on photographs."
            ),
            downloads=(),
            homepage="",
            terms="Apache-2.0, as the code that draws it",
            layout="",
        ),
        Source(
            name="fairface",
            version="1.0.0",
            tasks=("gender",),
            groups=("race", "age"),
            description=(
                "FairFace (margin 1.25), balanced as the PyTorch baseline does it: of each race and gender the first "
                "2,400 rows of the training labels and the first 600 of the validation labels."
            ),
            downloads=(
                (
                    "fairface-img-margin125-trainval.zip (Padding=1.25)",
                    "https://drive.google.com/file/d/1g7qNOZz9wC7OfOhcPqH1EZ5bk1UFGmlL",
                ),
                ("fairface_label_train.csv", "https://drive.google.com/file/d/1i1L3Yqwaio7YSOCj7ftgk8ZZchPG7dmH"),
                ("fairface_label_val.csv", "https://drive.google.com/file/d/1wOdja-ezstMEp81tX1a-EYkFebev4h7D"),
            ),
            homepage="https://github.com/joojs/fairface",
            terms="CC BY 4.0",
            layout="both csv beside the zip, or beside its folders train/ and val/",
            citation="""@inproceedings{karkkainen2021fairface,
  title={FairFace: Face Attribute Dataset for Balanced Race, Gender, and Age for Bias Measurement and Mitigation},
  author={Karkkainen, Kimmo and Joo, Jungseock},
  booktitle={Proceedings of the IEEE/CVF Winter Conference on Applications of Computer Vision},
  year={2021},
  pages={1548--1558}
}""",
        ),
        Source(
            name="glasses",
            version="1.0.0",
            tasks=("glasses",),
            groups=("gender", "identity"),
            description=(
                "People with and without glasses, split 80/20, stratified, as the PyTorch baseline does it, but from "
                "sorted names: the order in which the baseline's folders happened to be listed is lost."
            ),
            downloads=(
                ("archive.zip", "https://www.kaggle.com/datasets/saramhai/people-with-and-without-glasses-dataset"),
            ),
            homepage="https://www.kaggle.com/datasets/saramhai/people-with-and-without-glasses-dataset",
            terms="the terms on that page",
            layout="archive.zip, or its folders Images/glasses/ and Images/no_glasses/",
        ),
        Source(
            name="apparel",
            version="1.0.0",
            tasks=("shirt",),
            groups=("garment",),
            description=(
                "Shop photographs of shirts, dresses, suits and hoodies, labelled by colour, split 80/20 as the "
                "PyTorch baseline does it, but from sorted names: the order in which the baseline's folders happened "
                "to be listed is lost."
            ),
            downloads=(("archive.zip", "https://www.kaggle.com/datasets/kaiska/apparel-dataset"),),
            homepage="https://www.kaggle.com/datasets/kaiska/apparel-dataset",
            terms="the terms on that page",
            layout="archive.zip, or its folders <colour>_<garment>/",
        ),
    )
}


def get_source(name: str) -> Source:
    """Returns the source of that name.

    Raises:
      UserError: there is none.
    """
    if name not in SOURCES:
        raise unknown("data set", name, SOURCES)
    return SOURCES[name]


def version_of(source: Source) -> str:
    """Returns the version of a source's prepared form, `major.minor.patch`."""
    if source.is_drawn:
        from facefeat_jax.data.avatars import VERSION  # with Pillow; the table needs neither

        return VERSION
    return source.version


def open_source(source: Source, path: Path | None) -> Tree:
    """Opens a source's download.

    Raises:
      UserError: `path` is None or nothing is there (then the message says what to download, from where, under which
        terms, and which command comes then), or it can't be read.
    """
    if path is None:
        raise UserError(f"{source.name} has to be downloaded first: {instructions(source, Path('DIR'))}")
    if not path.exists():
        raise UserError(f"{path}: nothing there. {instructions(source, path)}")
    return open_tree(path)


def not_as_expected(source: Source, path: Path, found: str) -> UserError:
    """Returns the error for a download that does not look as it should."""
    return UserError(f"{path} does not look like {source.name}: {found}. {instructions(source, path)}")


def prepare_command(source: Source) -> str:
    """Returns the command that prepares the source."""
    return f"facefeat prepare {source.name}" + ("" if source.is_drawn else " --from DIR")


def instructions(source: Source, path: Path) -> str:
    """Returns what to download, from where, under which terms, where to put it, and which command comes then."""
    files = "; ".join(f"{what} from {where}" for what, where in source.downloads)
    return (
        f"Download {files} (terms: {source.terms}; see {source.homepage}), put it in a folder ({source.layout}), "
        f"then run: facefeat prepare {source.name} --from {path}"
    )
