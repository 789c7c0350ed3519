"""A list before a real store: what its caller may not view is jumped over, not read page by page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from doorward.gateway.protocols import s3_list
from support.s3_door import S3Door, opened, rclone

ORG = """
users:
  dana: {}
  omar: {}
assets:
  Dataset::"store/bucket": { owner: omar, sensitivity: 0 }
  Dataset::"store/bucket/archive": { owner: omar, sensitivity: 3 }
"""
POLICIES = """
@id("low") permit(principal, action in Doorward::Action::"use", resource is Doorward::Dataset)
  when { resource.sensitivity < 2 };
@id("own") permit(principal is Doorward::User, action == Doorward::Action::"view", resource)
  when { resource is Doorward::Dataset && resource has owner && resource.owner == principal };
"""


@pytest.fixture
def door(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Door]:
    # Hidden keys fill more pages than a list reads.
    monkeypatch.setattr(s3_list, "_MOST_PAGES", 2)
    archive = tmp_path / "root/bucket/archive"
    archive.mkdir(parents=True)
    for number in range(2100):
        (archive / f"{number:04}").write_bytes(b"")
    (tmp_path / "root/bucket/open.csv").write_text("a\n")
    with rclone(tmp_path / "root", tmp_path / "log") as url, opened(S3Door(url, ORG, POLICIES)) as door:
        yield door


def test_hidden_pages_are_not_read(door: S3Door) -> None:
    listed = door.client("dana").list_objects_v2(Bucket="bucket")
    assert [entry["Key"] for entry in listed["Contents"]] == ["open.csv"]
    assert not listed["IsTruncated"]
    outcome = door.log.outcome(door.log.of("decision")[-1].request_id)
    assert outcome["shown"] == 1
    assert 0 < outcome["hidden"] <= 1000

    mine = door.client("omar").list_objects_v2(Bucket="bucket", StartAfter="archive/1500")
    assert [len(mine["Contents"]), mine["Contents"][-1]["Key"]] == [600, "open.csv"]
