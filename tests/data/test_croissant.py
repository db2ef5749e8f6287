"""The description of a prepared set that machines read (mlcroissant 1.1.1 took those of all four sets, 2026-11-27)."""

from __future__ import annotations

import csv
import hashlib
import json

from facefeat_jax.data.builders import get_source, list_sources


def test_a_prepared_set_is_described_as_it_lies_on_disk(avatars_dir) -> None:
    (path,) = avatars_dir.glob("avatars/*/croissant.json")
    about = json.loads(path.read_text())
    assert about["@type"] == "sc:Dataset" and about["name"] == "avatars" and about["license"]
    assert about["conformsTo"] == ["http://mlcommons.org/croissant/1.0", "http://mlcommons.org/croissant/RAI/1.0"]
    assert {one["@id"] for one in about["distribution"]} == {"records-train.csv", "records-val.csv"}
    for file in about["distribution"]:
        content = (path.parent / file["contentUrl"]).read_bytes()
        assert file["sha256"] == hashlib.sha256(content).hexdigest()
        assert file["contentSize"] == f"{len(content)} B"
    for records in about["recordSet"]:
        columns = next(csv.reader((path.parent / f"{records['@id']}.csv").read_text().splitlines()))
        assert [field["source"]["extract"]["column"] for field in records["field"]] == columns
        assert {field["source"]["fileObject"]["@id"] for field in records["field"]} == {f"{records['@id']}.csv"}
    ids = [one["@id"] for part in (*about["recordSet"], about) for one in part.get("field", part.get("distribution"))]
    assert len(set(ids)) == len(ids)


def test_every_set_says_what_a_person_has_to_know(avatars_dir) -> None:
    import datetime

    from facefeat_jax.data._croissant import croissant

    (path,) = avatars_dir.glob("avatars/*/croissant.json")
    for name in list_sources():
        about = croissant(get_source(name), path.parent, datetime.date(2026, 1, 2))
        assert about["datePublished"] == "2026-01-02"
        for field in (
            "dataCollection",
            "dataLimitations",
            "dataBiases",
            "dataUseCases",
            "personalSensitiveInformation",
        ):
            assert about[f"rai:{field}"]
        is_drawn = get_source(name).is_drawn
        assert about["rai:personalSensitiveInformation"][0].startswith("none") == is_drawn
