import pytest

from stormdrill.store.records import MAX_CLASSES, UNTOLD, Outcome, RecordWriter, read_header, read_records


def writer(path, labels=(), room=4096):
    return RecordWriter(
        path, worker=0, boot_id="b", epoch_mono_ns=1, epoch_at="2026-01-01T00:00:00+00:00", labels=labels, room=room
    )


def label(name):
    return {"labels": {"name": name}, "deadline_ms": 1000.0}


def add(records, job, labels, region=UNTOLD):
    records.add(
        intended_us=job,
        lag_us=0,
        latency_us=5,
        job=job,
        status=200,
        labels=labels,
        outcome=Outcome.ANSWERED,
        region=region,
    )


def test_what_is_learnt_while_it_is_written_stands_in_the_header_as_it_is_read(tmp_path):
    records = writer(tmp_path / "r", [label("first")])
    add(records, 0, 0)
    second = records.learn_label(label('zwölf\t\n"x"'))
    add(records, 1, second, records.learn_region("eu"))
    records.flush()
    header, rows = read_records(tmp_path / "r")
    assert header["labels"] == [label("first"), label('zwölf\t\n"x"')]
    assert header["regions"] == ["eu"]
    assert rows["labels"].tolist() == [0, 1]
    assert rows["region"].tolist() == [UNTOLD, 0]
    assert records.learn_region("us") == 1
    records.close()
    assert read_header(tmp_path / "r")[0]["regions"] == ["eu", "us"]


def test_a_file_without_room_learns_nothing_and_is_as_it_was(tmp_path):
    records = writer(tmp_path / "r", [label("only")], room=0)
    assert records.learn_label(label("more")) is None
    assert records.learn_region("eu") is None
    add(records, 7, 0)
    records.close()
    header, rows = read_records(tmp_path / "r")
    assert "room" not in header
    assert rows["job"].tolist() == [7]


def test_what_finds_no_room_is_refused_and_harms_nothing(tmp_path):
    records = writer(tmp_path / "r", room=200)
    learnt = [records.learn_region(f"region-{number}") for number in range(50)]
    known = [index for index in learnt if index is not None]
    assert known == list(range(len(known)))
    assert 0 < len(known) < 50
    add(records, 3, 0)
    records.close()
    header, rows = read_records(tmp_path / "r")
    assert header["regions"] == [f"region-{number}" for number in known]
    assert rows["job"].tolist() == [3]


def test_no_more_is_learnt_than_a_byte_counts(tmp_path):
    records = writer(tmp_path / "r", [label("first")], room=1 << 16)
    learnt = [records.learn_label(label(str(number))) for number in range(300)]
    assert learnt[:255] == list(range(1, MAX_CLASSES))
    assert set(learnt[255:]) == {None}
    regions = [records.learn_region(str(number)) for number in range(300)]
    assert regions.index(None) == UNTOLD
    records.close()


def test_what_is_torn_of_the_last_entry_is_left_out(tmp_path):
    records = writer(tmp_path / "r")
    records.learn_region("eu")
    records.learn_region("us")
    records.close()
    data = (tmp_path / "r").read_bytes()
    (tmp_path / "r").write_bytes(data.replace(b'{"region": "us"}\t', b'{"region": "u     '))
    assert read_header(tmp_path / "r")[0]["regions"] == ["eu"]


def test_a_writer_that_died_within_its_header_leaves_no_record_file(tmp_path):
    writer(tmp_path / "r").close()
    data = (tmp_path / "r").read_bytes()
    (tmp_path / "r").write_bytes(data[:-100])
    with pytest.raises(ValueError, match="second line is incomplete"):
        read_header(tmp_path / "r")
