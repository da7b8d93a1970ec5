"""Packet tables and grids on disk: whole or absent, whoever builds them and whenever one is killed."""

# ruff: noqa: D103

import os
import random
import shutil
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from clips import RATE
from forks import fork, status

from videogym.video import FrameStore, open_video
from videogym.video import grid as grids
from videogym.video.cache import cache_root
from videogym.video.grid import DamagedGrid, Grid, write_grid

SIZE = (80, 48)
TIMES = [i / RATE for i in range(0, 160, 4)]


def leftovers(folder):
    return list(folder.rglob("*.tmp"))


@pytest.fixture
def path(clip):
    return str(clip("b_frames").path)


@pytest.fixture
def decoded(path, tmp_path):
    """Pixels without any cache."""
    with open_video(path, cache_dir=tmp_path / "elsewhere") as video:
        return video.frames_at(TIMES, size=SIZE).pixels


def tables(cache_dir):
    return list((cache_dir / "tables").glob("*.npz"))


# --- packet tables -----------------------------------------------------------------------------------


def test_the_cache_follows_its_variables(monkeypatch, tmp_path):
    monkeypatch.setenv("VIDEOGYM_CACHE", str(tmp_path / "own"))
    assert cache_root() == tmp_path / "own"
    monkeypatch.delenv("VIDEOGYM_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_root() == tmp_path / "xdg" / "videogym"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_root() == tmp_path / "home" / ".cache" / "videogym"


def test_a_table_comes_back_as_it_was(path, cache_dir):
    with open_video(path) as scanned, open_video(path) as loaded:
        assert loaded.meta == scanned.meta
        assert loaded.pts_s.tolist() == scanned.pts_s.tolist()
    assert len(tables(cache_dir)) == 1


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda data: b"", id="empty"),
        pytest.param(lambda data: data[: len(data) // 2], id="half"),
        pytest.param(lambda data: b"garbage" * 100, id="garbage"),
        pytest.param(lambda data: data[:300] + bytes(64) + data[364:], id="overwritten"),
    ],
)
def test_a_damaged_table_is_made_again(path, cache_dir, damage):
    open_video(path).close()
    (table,) = tables(cache_dir)
    good = table.read_bytes()
    table.write_bytes(damage(good))
    with open_video(path) as video:
        assert video.meta.num_frames == 160
    with np.load(table, allow_pickle=False) as stored:
        assert len(stored["pts"]) == 160


def test_a_pickle_in_place_of_a_table_is_not_loaded(path, cache_dir):
    class Trap:
        def __reduce__(self):
            return pytest.fail, ("a cache file was unpickled",)

    open_video(path).close()
    (table,) = tables(cache_dir)
    np.savez(table, pts=np.array([Trap()], dtype=object))
    with open_video(path) as video:
        assert video.meta.num_frames == 160


def test_a_cache_that_cannot_be_written_costs_only_time(path, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with open_video(path, cache_dir=tmp_path / "file" / "cache") as video:
        assert video.meta.num_frames == 160


def test_builders_killed_at_any_moment_leave_usable_tables(path, cache_dir):
    def build_for_ever():
        while True:
            for table in tables(cache_dir):
                table.unlink(missing_ok=True)
            open_video(path).close()

    for seed in range(8):
        pid = fork(build_for_ever)
        time.sleep(random.Random(seed).uniform(0.005, 0.06))
        os.kill(pid, signal.SIGKILL)
        assert status(pid) == -signal.SIGKILL
        for table in tables(cache_dir):
            with np.load(table, allow_pickle=False) as stored:
                assert len(stored["pts"]) == 160, "a half-written table was published"
        with open_video(path) as video:
            assert video.meta.num_frames == 160


# --- grids -------------------------------------------------------------------------------------------


def test_grid_frames_are_those_of_the_decoder(path, decoded):
    steps = []
    with FrameStore(lru_bytes=0) as store:
        store.build_grid(path, times_s=TIMES, size=SIZE, progress=lambda done, of: steps.append((done, of)))
    assert steps == [(40, 40)]
    with FrameStore(lru_bytes=0) as store:
        served = store.frames(path, TIMES, size=SIZE)
        assert np.array_equal(served.pixels, decoded)
        assert served.pts_s.tolist() == TIMES
        assert store.open(path).stats.opens == 0, "the grid was there and a decoder was opened"


def test_a_grid_serves_nothing_but_the_identical_request(path):
    """Another frame, size or resizer, or a region, is decoded."""
    with FrameStore(lru_bytes=0) as store:
        store.build_grid(path, times_s=TIMES, size=SIZE, resizer="bicubic")
        rendered = store.open(path).stats

        def decodes(times, **request):
            before = rendered.rendered
            store.frames(path, times, **({"size": SIZE} | request))
            return rendered.rendered - before

        assert decodes(TIMES[:3]) == 0
        assert decodes([TIMES[1] + 0.01]) == 0  # still the frame of TIMES[1]
        assert decodes([TIMES[1], 1 / RATE, 2 / RATE]) == 2
        assert decodes(TIMES[:3], size=(40, 24)) == 3
        assert decodes(TIMES[:3], resizer="area") == 3
        assert decodes(TIMES[:3], region=(0.0, 0.0, 1.0, 0.5)) == 3
        assert decodes(TIMES[:3], region=(0.0, 0.0, 1.0, 1.0)) == 0  # cuts nothing off


def test_answers_do_not_depend_on_a_grid(path):
    """The same random requests with and without; hits, misses and mixtures."""
    with FrameStore(lru_bytes=0) as plain, FrameStore(lru_bytes=0) as helped:
        requests = [
            [random.Random(seed).choice((*TIMES, *(t + 1 / RATE for t in TIMES))) for _ in range(6)]
            for seed in range(12)
        ]
        expected = [plain.frames(path, times, size=SIZE) for times in requests]
        helped.build_grid(path, times_s=TIMES, size=SIZE)
        for times, due in zip(requests, expected, strict=True):
            served = helped.frames(path, times, size=SIZE)
            assert np.array_equal(served.pixels, due.pixels)
            assert served.pts_s.tolist() == due.pts_s.tolist()


def test_a_grid_of_a_rate_covers_the_video(path):
    with FrameStore() as store:
        folder = store.build_grid(path, fps=2, size=SIZE)
        assert np.load(folder / "pts_s.npy").tolist() == [i / 2 for i in range(11)]  # 160 frames: 5.33 s


def test_a_grid_that_appears_is_found_by_a_store_that_looked_before(path):
    with FrameStore(lru_bytes=0) as early, FrameStore() as builder:
        early.frames(path, TIMES[:2], size=SIZE)
        builder.build_grid(path, times_s=TIMES, size=SIZE)
        before = early.open(path).stats.rendered
        early.frames(path, TIMES[:2], size=SIZE)
        assert early.open(path).stats.rendered == before


def test_a_truncated_grid_is_ignored_and_can_be_built_again(path, decoded):
    with FrameStore(lru_bytes=0) as store:
        folder = store.build_grid(path, times_s=TIMES, size=SIZE)
    whole = (folder / "pixels.npy").stat().st_size
    os.truncate(folder / "pixels.npy", whole // 2)
    with FrameStore(lru_bytes=0) as store:
        assert np.array_equal(store.frames(path, TIMES, size=SIZE).pixels, decoded)
        assert store.build_grid(path, times_s=TIMES, size=SIZE) == folder
        assert (folder / "pixels.npy").stat().st_size == whole


def test_frames_are_checked_once_until_the_grid_file_changes(tmp_path, monkeypatch):
    monkeypatch.setattr(grids, "_COARSE_NS", 0)  # the file's times are taken for old
    sums, plain = [], grids._sum
    monkeypatch.setattr(grids, "_sum", lambda *frame: sums.append(1) or plain(*frame))
    pts_s, frames = np.arange(5.0), np.arange(5 * 4 * 6 * 3, dtype=np.uint8).reshape(5, 4, 6, 3)
    grid = Grid(write_grid(tmp_path / "k", pts_s, iter([frames])))
    sums.clear()
    pixels = np.zeros_like(frames)
    for expected in (5, 5):
        assert not len(grid.fill(pixels, pts_s, np.arange(5)))
        assert len(sums) == expected and np.array_equal(pixels, frames)
    path = grid.folder / "pixels.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(1, 1))  # whatever its time is set to
    with pytest.raises(DamagedGrid, match="frame 4"):
        grid.fill(pixels, pts_s, np.arange(5))


def test_a_grid_file_that_has_just_changed_is_checked_at_every_reading(tmp_path, monkeypatch):
    pts_s, frames = np.arange(2.0), np.zeros((2, 4, 6, 3), np.uint8)
    grid = Grid(write_grid(tmp_path / "k", pts_s, iter([frames])))
    monkeypatch.setattr(grids, "_COARSE_NS", 10**18)
    sums, plain = [], grids._sum
    monkeypatch.setattr(grids, "_sum", lambda *frame: sums.append(1) or plain(*frame))
    for _ in range(3):
        grid.fill(np.zeros_like(frames), pts_s, np.arange(2))
    assert len(sums) == 6


def test_two_builders_at_once_make_one_grid(path, cache_dir, decoded):
    def build():
        with FrameStore() as store:
            store.build_grid(path, times_s=TIMES, size=SIZE)

    builders = [fork(build) for _ in range(3)]
    assert [status(pid) for pid in builders] == [0, 0, 0]
    (folder,) = (cache_dir / "grids").glob("*/*")
    assert np.array_equal(np.load(folder / "pixels.npy"), decoded)
    assert not leftovers(cache_dir)


def test_builders_killed_at_any_moment_leave_a_whole_grid_or_none(path, cache_dir, decoded):
    def build():
        with FrameStore() as store:
            store.build_grid(path, times_s=TIMES, size=SIZE)

    open_video(path).close()
    finished = 0
    for seed in range(12):
        pid = fork(build)
        time.sleep(random.Random(seed).uniform(0.002, 0.08))
        os.kill(pid, signal.SIGKILL)
        status(pid)
        for folder in (cache_dir / "grids").glob("*/[!.]*"):
            finished += 1
            assert np.array_equal(np.load(folder / "pixels.npy"), decoded), "half a grid was published"
    with FrameStore(lru_bytes=0) as store:
        store.build_grid(path, times_s=TIMES, size=SIZE)
        assert np.array_equal(store.frames(path, TIMES, size=SIZE).pixels, decoded)


def test_what_killed_builders_leave_is_swept_after_an_hour(path, cache_dir):
    with FrameStore() as store:
        folder = store.build_grid(path, times_s=TIMES[:2], size=SIZE)
        old, young = folder.with_name(".old.tmp"), folder.with_name(".young.tmp")
        for leftover in (old, young):
            leftover.mkdir()
            (leftover / "pixels.npy").write_bytes(b"half")
        for entry in (old / "pixels.npy", old):
            os.utime(entry, (time.time() - 4000,) * 2)
        store.build_grid(path, times_s=TIMES, size=SIZE)
    assert leftovers(cache_dir) == [young]


def test_two_processes_read_one_grid(path, decoded):
    with FrameStore(lru_bytes=0) as store:
        store.build_grid(path, times_s=TIMES, size=SIZE)
        store.frames(path, TIMES[:1], size=SIZE)

        def read():
            with FrameStore(lru_bytes=0) as own:
                assert np.array_equal(own.frames(path, TIMES, size=SIZE).pixels, decoded)
                assert own.open(path).stats.opens == 0
            assert np.array_equal(store.frames(path, TIMES, size=SIZE).pixels, decoded)  # the parent's

        assert [status(pid) for pid in [fork(read), fork(read)]] == [0, 0]


@pytest.mark.parametrize("request_", [{}, {"times_s": [0.0], "fps": 1.0}, {"fps": 0.0}, {"times_s": []}])
def test_a_grid_needs_times_or_a_rate(path, request_):
    with FrameStore() as store, pytest.raises(ValueError, match=r"grid|fps"):
        store.build_grid(path, size=SIZE, **request_)


# --- what others put into a shared cache -------------------------------------------------------------


@pytest.mark.parametrize("name", [".a.tmp", f".a.npz.{'0' * 16}.tmp"])
@pytest.mark.parametrize("plant", ["link", "link inside", "folder inside", "other names", "file"])
def test_sweeping_removes_nothing_but_what_a_builder_made(path, cache_dir, tmp_path, name, plant):
    victim = tmp_path / "home"
    (victim / "more").mkdir(parents=True)
    for file in (victim / "thesis.tex", victim / "pixels.npy", victim / "more" / "id_rsa"):
        file.write_text("precious")
        os.utime(file, (1e9, 1e9))
    os.utime(victim, (1e9, 1e9))
    for folder in (cache_dir / "tables", cache_dir / "grids"):
        planted = folder / name
        folder.mkdir(parents=True, exist_ok=True)
        if plant == "link":
            planted.symlink_to(victim)
        elif plant == "file":
            planted = planted.with_name(".mine.tmp")
            planted.write_text("precious")
        else:
            planted.mkdir()
            if plant == "link inside":
                (planted / "pixels.npy").symlink_to(victim / "pixels.npy")
            elif plant == "folder inside":
                (planted / "pixels.npy").mkdir()
            else:
                (planted / "thesis.tex").write_text("precious")
                os.utime(planted / "thesis.tex", (1e9, 1e9))
        os.utime(planted, (1e9, 1e9), follow_symlinks=False)
    before = sorted(p for p in tmp_path.rglob("*"))
    with FrameStore() as store:
        store.build_grid(path, times_s=TIMES[:2], size=SIZE)
    assert not {*before} - {*tmp_path.rglob("*")}
    assert all(
        file.read_text() == "precious" for file in (victim / "thesis.tex", victim / "more" / "id_rsa")
    )


# --- damage --------------------------------------------------------------------------------------------


def test_no_bit_of_a_table_ends_a_run(path, cache_dir):
    """Every third byte of an archive with one bit changed: the video opens, and says what it said."""
    with open_video(path) as video:
        meta, pts_s = video.meta, video.pts_s
    (sidecar,) = (cache_dir / "tables").iterdir()
    whole = sidecar.read_bytes()
    for place in range(0, len(whole), 3):
        sidecar.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        with open_video(path) as video:
            assert video.meta == meta and np.array_equal(video.pts_s, pts_s)


@pytest.mark.parametrize(
    "change",
    [
        {"pts": np.zeros(0, np.int64)},
        {"pts": np.array([3, 2, 1])},
        {"pts": np.zeros((2, 2), np.int64)},
        {"keys": np.array([0.5])},
        {"tick": (1, 0)},
        {"width": "wide"},
        {"end": -1},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_table_that_cannot_be_one_is_made_again(path, cache_dir, change):
    with open_video(path) as video:
        meta = video.meta
    (sidecar,) = (cache_dir / "tables").iterdir()
    with np.load(sidecar) as stored:
        facts = {name: stored[name] for name in stored.files}
    with open(sidecar, "wb") as file:
        np.savez(file, **{**facts, **change})
    with open_video(path) as video:
        assert video.meta == meta


def _change_a_byte(folder):
    with open(folder / "pixels.npy", "r+b") as file:
        file.seek(-7, os.SEEK_END)
        byte = file.read(1)[0]
        file.seek(-7, os.SEEK_END)
        file.write(bytes([byte ^ 1]))


def _change_the_shape(folder):
    pixels = np.load(folder / "pixels.npy")
    np.save(folder / "pixels.npy", pixels[:, :1, :1])


def _change_the_times(folder):
    np.save(folder / "pts_s.npy", np.load(folder / "pts_s.npy")[::-1])


def _shift_the_times(folder):
    np.save(folder / "pts_s.npy", np.load(folder / "pts_s.npy") + 1.0)


def _swap_frames(folder):
    pixels = np.load(folder / "pixels.npy")
    np.save(folder / "pixels.npy", pixels[::-1])


def _change_the_header(folder):
    content = (folder / "sums.npy").read_bytes()
    (folder / "sums.npy").write_bytes(content.replace(b"}", b"{", 1))


def _write_an_archive(folder):
    (folder / "pts_s.npy").write_bytes(b"PK\x03\x04" + bytes(60))


def _cut(folder):
    os.truncate(folder / "pixels.npy", 5000)


def _no_sums(folder):
    (folder / "sums.npy").unlink()


def _no_frames(folder):
    np.save(folder / "pts_s.npy", np.zeros(0))


CHANGES = [_change_a_byte, _change_the_shape, _change_the_times, _shift_the_times]
CHANGES += [_swap_frames, _cut, _no_sums, _no_frames, _change_the_header, _write_an_archive]


@pytest.mark.parametrize("change", CHANGES)
def test_a_damaged_grid_is_never_served_and_made_again(path, decoded, change, caplog):
    with FrameStore(lru_bytes=0) as store:
        folder = store.build_grid(path, times_s=TIMES, size=SIZE)
    change(folder)
    with FrameStore(lru_bytes=0) as store:
        assert np.array_equal(store.frames(path, TIMES, size=SIZE).pixels, decoded)
        assert "damaged and not used" in caplog.text
        assert store.build_grid(path, times_s=TIMES, size=SIZE) == folder
    assert np.array_equal(np.load(folder / "pixels.npy"), decoded)
    caplog.clear()
    with FrameStore(lru_bytes=0) as store:
        assert np.array_equal(store.frames(path, TIMES, size=SIZE).pixels, decoded)
        assert not caplog.text


@pytest.mark.parametrize("change", [_cut, _change_a_byte])
def test_a_grid_that_is_damaged_while_it_is_open_is_not_served(path, decoded, change, caplog):
    """Cut while it was mapped, it ended the process."""
    with FrameStore(lru_bytes=0) as store:
        folder = store.build_grid(path, times_s=TIMES, size=SIZE)
        assert np.array_equal(store.frames(path, TIMES, size=SIZE).pixels, decoded)
        change(folder)
        assert np.array_equal(store.frames(path, TIMES, size=SIZE).pixels, decoded)
    assert "damaged and not used" in caplog.text


def test_two_threads_that_meet_the_same_damage_decode(path, decoded, monkeypatch, caplog):
    """Both hold the grid when both find it damaged."""
    together = threading.Barrier(2)

    def damaged(*arguments):
        together.wait(60)
        raise DamagedGrid("a frame is not the one that was stored")

    with FrameStore(lru_bytes=0) as store, ThreadPoolExecutor(2) as threads:
        store.build_grid(path, times_s=TIMES, size=SIZE)
        monkeypatch.setattr(Grid, "fill", damaged)
        read = [threads.submit(store.frames, path, TIMES, size=SIZE) for _ in range(2)]
        assert all(np.array_equal(one.result(60).pixels, decoded) for one in read)
    assert caplog.text.count("damaged and not used") == 2


def test_a_grid_that_is_made_again_while_it_is_found_damaged_costs_decoding(path, decoded, monkeypatch):
    fill = Grid.fill
    with FrameStore(lru_bytes=0) as store:
        folder = store.build_grid(path, times_s=TIMES, size=SIZE)

        def made_again(*arguments):
            monkeypatch.setattr(Grid, "fill", fill)
            shutil.rmtree(folder)
            store.build_grid(path, times_s=TIMES, size=SIZE)
            store.frames(path, TIMES, size=SIZE)  # another thread has found the new one
            raise DamagedGrid("a frame is not the one that was stored")

        monkeypatch.setattr(Grid, "fill", made_again)
        for _ in range(2):
            assert np.array_equal(store.frames(path, TIMES, size=SIZE).pixels, decoded)


def test_grids_that_are_deleted_while_they_are_listed_cost_decoding(path, decoded, monkeypatch):
    listed = Path.iterdir

    def deleted(folder):
        shutil.rmtree(folder)
        return listed(folder)

    with FrameStore(lru_bytes=0) as store:
        store.build_grid(path, times_s=TIMES, size=SIZE)
        with monkeypatch.context() as patch:
            patch.setattr(Path, "iterdir", deleted)
            assert np.array_equal(store.frames(path, TIMES, size=SIZE).pixels, decoded)


def test_two_builders_that_remove_the_same_damage_make_one_grid(path, decoded, monkeypatch):
    with FrameStore(lru_bytes=0) as store:
        folder = store.build_grid(path, times_s=TIMES, size=SIZE)
        _cut(folder)
        remove = shutil.rmtree

        def gone(which, *arguments, **options):
            remove(which, *arguments, **options)
            if which == folder:
                raise FileNotFoundError(which)

        monkeypatch.setattr(shutil, "rmtree", gone)
        assert store.build_grid(path, times_s=TIMES, size=SIZE) == folder
    assert np.array_equal(np.load(folder / "pixels.npy"), decoded)


def test_a_grid_of_another_video_is_not_served(path, cache_dir, decoded, caplog):
    """Whole in itself, in the folder of this one."""
    with FrameStore(lru_bytes=0) as store:
        folder = store.build_grid(path, times_s=TIMES, size=SIZE)
        other = folder.parent.with_name("other-64x36-bicubic") / folder.name
        write_grid(other.parent, np.load(folder / "pts_s.npy"), iter([255 - decoded]))
    for name in ("pixels.npy", "sums.npy", "pts_s.npy"):
        (folder / name).write_bytes((other / name).read_bytes())
    with FrameStore(lru_bytes=0) as store:
        assert np.array_equal(store.frames(path, TIMES, size=SIZE).pixels, decoded)
    assert "damaged and not used" in caplog.text
