import json
import shutil
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
from tiny_stage import CONFIG

from taming_jax.training.workdir import check_and_record, check_room, claimed

IDENTITY = {"train": {"name": "shapes", "look": "a1"}, "val": {"name": "shapes"}}

HOLD = """
import sys, time, pathlib
from taming_jax.training.workdir import claimed
with claimed(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path):
    """A living process that holds the directory `tmp_path / "vqgan"`."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "vqgan")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_directory_in_use_is_refused(tmp_path, holder):
    message = f"vqgan is in use by process {holder.pid}: .*another --workdir"
    with pytest.raises(ValueError, match=message), claimed(tmp_path / "vqgan"):
        pass


def test_a_directory_left_by_the_dead_is_accepted(tmp_path, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with claimed(tmp_path / "vqgan"):
        assert (tmp_path / "vqgan").is_dir()


def test_a_directory_is_free_again_afterwards(tmp_path):
    with claimed(tmp_path):
        pass
    with claimed(tmp_path):
        pass


def changed(key, value):
    """CONFIG with the value at a dotted key replaced."""
    config = json.loads(json.dumps(CONFIG))
    *path, last = key.split(".")
    section = config
    for name in path:
        section = section[name]
    section[last] = value
    return config


def begin(directory, config=CONFIG, identity=IDENTITY):
    return check_and_record(directory, "vqgan", config, identity, facts={})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", 1),
        ("data.image_size", 16),
        ("vqgan.model.quantizer.codebook_size", 32),
        ("vqgan.model.dtype", "bfloat16"),
        ("vqgan.discriminator.layers", 2),
        ("vqgan.adversarial_weight", 0.0),  # then there is no discriminator
        ("vqgan.batch_size", 8),
    ],
)
def test_what_makes_another_run_is_refused_by_its_key(tmp_path, key, value):
    begin(tmp_path)
    message = f"was begun with {key}=.* now it is {value!r}.*another --workdir"
    with pytest.raises(ValueError, match=message):
        begin(tmp_path, changed(key, value))


@pytest.mark.parametrize("key", ["vqgan.lecam_weight", "vqgan.r1_weight"])
@pytest.mark.parametrize(("before", "after"), [(0.0, 0.1), (0.1, 0.0)])
def test_what_the_adversary_remembers_neither_comes_nor_goes(
    tmp_path, key, before, after
):
    begin(tmp_path, changed(key, before))
    message = f"begun with {key}={before}, now it is {after}.*another --workdir"
    with pytest.raises(ValueError, match=message):
        begin(tmp_path, changed(key, after))


def test_muon_neither_comes_nor_goes_and_may_be_faster(tmp_path):
    begin(tmp_path, changed("vqgan.optimizer", {"muon": 2.0}))
    begin(tmp_path, changed("vqgan.optimizer", {"muon": 3.0}))
    message = r"begun with vqgan.optimizer.muon=3\.0, now it is 0\.0"
    with pytest.raises(ValueError, match=message):
        begin(tmp_path)


def test_what_is_not_said_is_the_default(tmp_path):
    """0 for LeCAM, 0.8 for the adversary."""
    config = json.loads(json.dumps(CONFIG))
    del config["vqgan"]["adversarial_weight"]
    begin(tmp_path, config)
    with pytest.raises(ValueError, match=r"lecam_weight=0\.0, now it is 0\.1"):
        begin(tmp_path, changed("vqgan.lecam_weight", 0.1))
    assert begin(tmp_path) == []  # 0.8, which is said now
    assert begin(tmp_path, changed("vqgan.lecam_weight", 0.0)) == []


def test_what_the_adversary_remembers_may_weigh_more(tmp_path):
    begin(tmp_path, changed("vqgan.r1_weight", 0.1))
    changes = begin(tmp_path, changed("vqgan.r1_weight", 0.2))
    assert changes == ["vqgan.r1_weight: 0.1 -> 0.2"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("vqgan.steps", 9),
        ("vqgan.learning_rate", 0.5),
        ("vqgan.log_every", 2),
        ("vqgan.eval_every", 2),
        ("vqgan.image_every", 2),
        ("vqgan.checkpoint_every", 2),
        ("vqgan.adversarial_weight", 0.4),
        ("mesh.fsdp", 2),
    ],
)
def test_what_may_change_is_said(tmp_path, key, value):
    begin(tmp_path)
    changes = begin(tmp_path, changed(key, value))
    assert [change.partition(":")[0] for change in changes] == [key]


def test_a_change_is_told_from_what_to_what(tmp_path):
    begin(tmp_path)
    assert begin(tmp_path, changed("vqgan.steps", 9)) == ["vqgan.steps: 6 -> 9"]


def test_other_data_are_refused(tmp_path):
    begin(tmp_path)
    other = IDENTITY | {"train": {"name": "shapes", "look": "b2"}}
    with pytest.raises(ValueError, match=r"trained on other data: .*a1.*, now .*b2"):
        begin(tmp_path, identity=other)


def test_data_may_move(tmp_path):
    """Where they lie is no part of what they are."""
    begin(tmp_path)
    assert begin(tmp_path, changed("data.train", "elsewhere")) == []


def test_maps_may_move_with_their_pictures(tmp_path):
    before, after = (
        CONFIG | {"data": {**CONFIG["data"], "train_maps": {"depth": place}}}
        for place in ("here", "there")
    )
    begin(tmp_path, before)
    assert begin(tmp_path, after) == []


def test_a_refusal_changes_nothing(tmp_path):
    begin(tmp_path)
    before = (tmp_path / "config.json").read_bytes()
    with pytest.raises(ValueError, match="seed"):
        begin(tmp_path, changed("seed", 1))
    assert (tmp_path / "config.json").read_bytes() == before


def test_other_stages_of_the_card_do_not_matter(tmp_path):
    begin(tmp_path, CONFIG | {"prior": {"steps": 1}})
    assert begin(tmp_path, CONFIG | {"prior": {"steps": 2}}) == []


def test_config_json_says_what_the_run_is(tmp_path):
    begin(tmp_path)
    record = json.loads((tmp_path / "config.json").read_text())
    assert (record["config"], record["data"]) == (CONFIG, IDENTITY)
    assert {"jax", "flax", "python"} <= record["versions"].keys()


def test_config_json_follows_what_has_changed(tmp_path):
    begin(tmp_path)
    begin(tmp_path, changed("vqgan.steps", 9))
    record = json.loads((tmp_path / "config.json").read_text())
    assert record["config"]["vqgan"]["steps"] == 9


def test_room_for_every_checkpoint_is_asked_for(tmp_path, monkeypatch):
    """Three are kept, the best one besides, and one is being written."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=4.9e9))
    with pytest.raises(ValueError, match=r"4\.9 GB of room; 5 checkpoints of 1\.0 GB"):
        check_room(tmp_path, state_bytes=10**9, keep=3)


def test_checkpoints_that_are_there_need_no_more_room(tmp_path, monkeypatch):
    saved = tmp_path / "checkpoints" / "7" / "state"
    saved.mkdir(parents=True)
    (saved / "array").write_bytes(bytes(3_000))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2_100))
    check_room(tmp_path, state_bytes=1_000, keep=3)


def test_room_is_looked_for_where_the_directory_will_be(tmp_path, monkeypatch):
    asked = []

    def usage(path):
        asked.append(path)
        return SimpleNamespace(free=1e12)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    check_room(tmp_path / "not" / "yet", state_bytes=1, keep=1)
    assert asked == [tmp_path]


def test_enough_room_is_enough(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=5.1e9))
    check_room(tmp_path, state_bytes=10**9, keep=3)


def test_a_run_goes_on_only_with_what_it_rests_on(tmp_path):
    facts = {"tokenizer": {"fingerprint": "a1"}}
    check_and_record(tmp_path, "vqgan", CONFIG, IDENTITY, facts)
    with pytest.raises(ValueError, match=r"tokenizer.fingerprint='a1', now.*'b2'"):
        check_and_record(
            tmp_path, "vqgan", CONFIG, IDENTITY, {"tokenizer": {"fingerprint": "b2"}}
        )
