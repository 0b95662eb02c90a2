"""Kept states of frozen layers: what comes back, within the bound, on a full disk, and nothing left behind."""

from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from recbole_xling.model.text_encoder import frozen_layers as frozen_states
from recbole_xling.model.text_encoder.frozen_layers import FrozenLayers, FrozenStates
from recbole_xling.model.text_encoder.tokens import TokenizedTexts

_SIZE = 4
_LENGTH = torch.tensor([3, 1, 5, 2, 3])
_CPU = torch.device("cpu")


def _tokens() -> TokenizedTexts:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1, 99, (int(_LENGTH.sum()),), generator=generator, dtype=torch.int32)
    return TokenizedTexts("abcde", torch.arange(5), ids, _LENGTH.cumsum(0) - _LENGTH, _LENGTH, 0)


class _Run:
    """Frozen layers that return a function of each token, and count the texts they see."""

    def __init__(self) -> None:
        self.n_texts = 0

    def __call__(self, input_ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        self.n_texts += len(input_ids)
        return (input_ids * mask)[..., None] / torch.tensor([3.0, 5.0, 7.0, 11.0])


def _layers(run: _Run, room: int, tmp_path: Path) -> FrozenLayers:
    options: dict[str, Any] = {"max_bytes": room * _SIZE * 2, "batch_size": 2, "folder": tmp_path}
    return FrozenLayers(run, _SIZE, **options)


@pytest.mark.parametrize(("room", "kept"), [(100, 5), (14, 5), (13, 4), (6, 3), (2, 1), (0, 0)])
def test_states_are_the_same_whatever_there_is_room_for(room: int, kept: int, tmp_path: Path) -> None:
    run, tokens = _Run(), _tokens()
    layers = _layers(run, room, tmp_path)
    for text_ids in (torch.tensor([2, 0, 1]), torch.tensor([4, 3, 2, 1, 0]), torch.tensor([3])):
        expected = _Run()(*tokens.batch(text_ids))
        torch.testing.assert_close(layers(tokens, text_ids, _CPU), expected, rtol=2**-10, atol=0)
    run.n_texts = 0
    layers(tokens, torch.arange(5), _CPU)
    assert run.n_texts == 5 - kept


def test_two_catalogs_share_the_bound(tmp_path: Path) -> None:
    run, first, second = _Run(), _tokens(), _tokens()
    layers = _layers(run, 16, tmp_path)
    layers(first, torch.arange(5), _CPU)
    layers(second, torch.arange(5), _CPU)
    run.n_texts = 0
    layers(first, torch.arange(5), _CPU)
    assert run.n_texts == 0
    layers(second, torch.arange(5), _CPU)
    assert run.n_texts == 5 - 1, "two rows are left, the shortest text has one"


def test_the_file_has_no_name_and_goes_with_its_owner(tmp_path: Path) -> None:
    layers, tokens = _layers(_Run(), 100, tmp_path), _tokens()
    layers(tokens, torch.arange(5), _CPU)
    assert not list(tmp_path.iterdir()), "nothing is left even by a process that is killed"
    assert _held_open(tmp_path)
    del layers
    gc.collect()
    assert not _held_open(tmp_path)


def _held_open(folder: Path) -> bool:
    """Whether this process holds a file of ``folder`` open."""
    descriptors = Path("/proc/self/fd")
    if not descriptors.is_dir():
        pytest.skip("the system does not tell which files are open")
    return any(str(folder) in os.readlink(path) for path in descriptors.iterdir() if os.path.lexists(path))


def test_a_full_disk_only_ends_keeping(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run, tokens = _Run(), _tokens()
    layers = _layers(run, 100, tmp_path)

    class Full:
        """A file on a disk that is full."""

        def __init__(self, file: Any) -> None:
            self._file, self._n = file, 0

        def __getattr__(self, name: str) -> Any:
            return getattr(self._file, name)

        def write(self, data: Any) -> int:
            self._n += 1
            if self._n > 1:
                raise OSError(28, "No space left on device")
            return self._file.write(data)

    opened = frozen_states.tempfile.TemporaryFile
    monkeypatch.setattr(frozen_states.tempfile, "TemporaryFile", lambda **options: Full(opened(**options)))
    expected = _Run()(*tokens.batch(torch.arange(5)))
    for _ in range(2):
        run.n_texts = 0
        torch.testing.assert_close(layers(tokens, torch.arange(5), _CPU), expected, rtol=2**-10, atol=0)
    assert run.n_texts == 3, "the first bucket of two texts is kept"
    assert "No space left" in caplog.text


def test_values_beyond_half_precision_are_not_kept() -> None:
    states = FrozenStates(torch.tensor([1, 1]), _SIZE, 1000)
    states.put(torch.tensor([0, 1]), torch.tensor([[[1.0] * _SIZE], [[1e5] * _SIZE]]))
    assert states.known(torch.tensor([0, 1])).tolist() == [True, False]
