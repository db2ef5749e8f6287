"""The description of a prepared data set that machines read: Croissant 1.0, with its responsible-AI fields.

The format: https://docs.mlcommons.org/croissant/docs/croissant-spec.html and `croissant-rai-spec.html` beside it.
"""

from __future__ import annotations

import csv
import datetime
import hashlib
from pathlib import Path
from typing import Any

from facefeat_jax.data.sources import Source

CROISSANT = "croissant.json"

_SPEC = "http://mlcommons.org/croissant"
_TERMS = (
    "citeAs column data dataType examples extract field fileProperty fileObject fileSet format includes isLiveDataset "
    "jsonPath key md5 parentField path recordSet references regex repeated replace separator source subField transform "
    "equivalentProperty samplingRate"
)
_TYPES = {"record": "sc:Integer", "source_row": "sc:Integer"}


def croissant(source: Source, folder: Path, prepared: datetime.date) -> dict[str, Any]:
    """Returns the description of a prepared data set as JSON values.

    Args:
      source: what the data set is.
      folder: where its listings lie (`records-train.csv` and so on).
      prepared: when it was prepared.
    """
    listings = sorted(folder.glob("records-*.csv"))
    context: dict[str, Any] = {name: f"cr:{name}" for name in _TERMS.split()}
    context |= {"data": {"@id": "cr:data", "@type": "@json"}, "examples": {"@id": "cr:examples", "@type": "@json"}}
    context |= {"dataType": {"@id": "cr:dataType", "@type": "@vocab"}, "conformsTo": "dct:conformsTo"}
    context |= {"@language": "en", "@vocab": "https://schema.org/", "sc": "https://schema.org/"}
    context |= {"cr": f"{_SPEC}/", "rai": f"{_SPEC}/RAI/", "dct": "http://purl.org/dc/terms/"}
    labels = ", ".join(source.tasks)
    made = "drawn by this project's code" if source.is_drawn else "photographs that others collected and labelled"
    return {
        "@context": context,
        "@type": "sc:Dataset",
        "conformsTo": [f"{_SPEC}/1.0", f"{_SPEC}/RAI/1.0"],
        "name": source.name,
        "description": source.description,
        "version": source.version,
        "license": source.terms,
        "url": source.homepage or CROISSANT,
        "datePublished": prepared.isoformat(),
        **({"citeAs": source.citation} if source.citation else {}),
        "isLiveDataset": False,
        "rai:dataCollection": f"The pictures are {made}. Prepared with: facefeat prepare {source.name}.",
        "rai:dataAnnotationProtocol": f"Labels ({labels}) are the source's own; none was changed.",
        "rai:dataPreprocessingProtocol": "Files that don't decode are left out (left_out.csv); others keep all bytes.",
        "rai:dataUseCases": "Training and evaluating heads of facefeat_jax, and studying where they fail.",
        "rai:dataLimitations": "A label is what annotators saw in a picture. It does not say who a person is.",
        "rai:dataBiases": "Classes and groups are not balanced and go together: facefeat audit measures how far.",
        "rai:dataSocialImpact": "Decisions about people must not rest on models that were trained on these labels.",
        "rai:personalSensitiveInformation": (
            ["none: nobody is shown"] if source.is_drawn else [f"pictures of people; {labels}", *source.groups]
        ),
        "distribution": [_file(path) for path in listings],
        "recordSet": [_records(path) for path in listings],
    }


def _file(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    return {
        "@type": "cr:FileObject",
        "@id": path.name,
        "name": path.name,
        "contentUrl": path.name,
        "contentSize": f"{len(content)} B",
        "encodingFormat": "text/csv",
        "sha256": hashlib.sha256(content).hexdigest(),
    }


def _records(path: Path) -> dict[str, Any]:
    with path.open(encoding="utf-8", newline="") as file:
        columns = next(csv.reader(file))
    name = path.stem
    return {
        "@type": "cr:RecordSet",
        "@id": name,
        "name": name,
        "description": "A line for each picture; record n of the ArrayRecord files of this split is line n.",
        "field": [
            {
                "@type": "cr:Field",
                "@id": f"{name}/{column}",
                "name": column,
                "description": column.replace("_", " "),
                "dataType": _TYPES.get(column, "sc:Text"),
                "source": {"fileObject": {"@id": path.name}, "extract": {"column": column}},
            }
            for column in columns
        ],
    }
