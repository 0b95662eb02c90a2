"""Damaged files, foreign checkpoints and strange words end in a working command or in an error of few lines.

Some cases of each kind each time; ten thousand, in some hours, with counts printed::

    RECBOLE_XLING_FUZZ=10000 pytest -rP tests/cli/test_damaged_files.py

``RECBOLE_XLING_FUZZ=10000:20000`` tries other cases. A failure names the case; its number is the seed.
"""

from __future__ import annotations

import io
import json
import logging
import shutil
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
import yaml
from damage import BINARY, ODD, VALUES, cases, damaged

from recbole_xling.cli.main import COMMANDS, main
from recbole_xling.testing import make_tiny_encoder, small_settings, write_small_dataset
from recbole_xling.utils.yaml_text import SettingsLoader

GOOD, ERROR = "result", "error"
_MODELS = ("LLMSASRec", "XLingTwoTower", "XLingMLP", "HistoryEASE", "BPR")


class Bench:
    """A small dataset with a finished run of each model in a folder, which is put back after each command."""

    def __init__(self, root: Path) -> None:
        self.root = root
        write_small_dataset(root / "data", n_users=12, n_items=15)
        users = "\n".join(f"u{user}\t{('de', 'fr')[user % 2]}" for user in range(12))
        (root / "data/small/small.user").write_text(f"user_id:token\tuser_language:token\n{users}\n")
        settings = {**small_settings(root), "epochs": 1}
        settings["load_col"]["user"] = ["user_id", "user_language"]
        (root / "s.json").write_text(json.dumps(settings))
        encoder = make_tiny_encoder(root / "encoder")
        self.runs = {}
        for model in _MODELS:
            own = [f"--encoder={encoder}", "--encoder_options={}", "--peft=lora"] if model == "XLingTwoTower" else []
            code, told = self.call(f"--model={model}", "--dataset=small", *self.settings, *own)
            assert code == 0, told
            (folder,) = (root / "saved").glob(f"{model}-*")
            shutil.rmtree(folder / "tensorboard")
            self.runs[model] = folder.rename(root / "saved" / model)
        self.export = root / "export"
        assert self.call("export", str(self.runs["LLMSASRec"]), "--to", str(self.export), "--index", "flat")[0] == 0
        self.tables = {}
        for folder in (self.export, self.runs["LLMSASRec"]):
            self.tables["recommend", folder.name] = self.call("recommend", str(folder), "--user", "u3", "--json")[1]
        for model, folder in self.runs.items():
            self.tables["evaluate", model] = self.call("evaluate", str(folder))[1].partition("Folder:")[0]
            assert "all users" in self.tables["evaluate", model]
        self.files = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}

    @property
    def settings(self) -> tuple[str, str]:
        return "--config_files", str(self.root / "s.json")

    @property
    def words(self) -> list[str]:
        """The same settings as words."""
        content = json.loads((self.root / "s.json").read_text())
        return [f"--{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in content.items()]

    def call(self, *words: str) -> tuple[int, str]:
        """Call the command line; return its exit code and what it wrote to the standard error output."""
        root_logger, error, output = logging.getLogger(), io.StringIO(), io.StringIO()
        before = root_logger.handlers[:]
        with redirect_stderr(error), redirect_stdout(output):
            try:
                code = main(words)
            except SystemExit as end:  # argparse
                code = int(end.code or 0)
        root_logger.handlers[:] = before
        return code, error.getvalue() if code else output.getvalue()

    def usual(self, command: Sequence[str]) -> str:
        """Return what a command prints of an undamaged run; nothing if that is not known."""
        return self.tables.get((command[0], Path(command[1]).name), "") if len(command) > 1 else ""

    def restore(self) -> None:
        """Put everything back as it was."""
        for path in self.root.rglob("*"):
            if path.is_file() and path not in self.files:
                path.unlink()
        for path, content in self.files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.is_file() or path.read_bytes() != content:
                path.write_bytes(content)
        for folder in (self.root / "saved").iterdir():
            if folder not in self.runs.values():
                shutil.rmtree(folder)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("damaged"))


Case = Callable[[Bench, Random], tuple[str, list[str]]]
"""Damages something and returns what, and the words of a command that meets it.

What a case tells of files with a checksum begins with ``!``: if the command works, its result must be the usual one.
"""


def _damaged_file(path: Path, choice: Random) -> str:
    kind = choice.randrange(8)
    if kind == 0:
        path.unlink()
        return f"{path.name} removed"
    if kind == 1:
        path.write_bytes(b"")
        return f"{path.name} emptied"
    name = f"{path.name}.json" if path.suffix in (".json", ".jsonl") else path.name
    _, content, ways = damaged(name, path.read_bytes(), choice, packed=False)
    path.write_bytes(content)
    return f"{path.name}: {ways}"


def dataset(bench: Bench, choice: Random) -> tuple[str, list[str]]:
    """A file of the dataset is damaged before any command that reads it."""
    suffix = choice.choice(["inter", "inter", "item", "user", "itemtext.jsonl", "itemtext.jsonl"])
    what = _damaged_file(bench.root / "data/small" / f"small.{suffix}", choice)
    model = choice.choice(_MODELS)
    command = choice.choice(
        [
            [f"--model={model}", "--dataset=small", *bench.settings],
            [f"--model={model}", "--dataset=small", *bench.settings],
            ["card", "small", *bench.settings],
            ["encode", "--dataset=small", *bench.settings],
            ["evaluate", str(bench.runs[model])],
        ]
    )
    return what, command


def run_folder(bench: Bench, choice: Random) -> tuple[str, list[str]]:
    """A file of a finished run is damaged before the run is read."""
    folder = bench.runs[choice.choice(_MODELS)]
    path = choice.choice(sorted(path for path in folder.iterdir() if path.is_file()))
    command, is_whole = _reading(bench, folder, choice), path.suffix in (".json", ".yaml") and choice.random() < 0.7
    what = _odd_value(path, path.read_bytes(), choice) if is_whole else _damaged_file(path, choice)
    return ("!" if path.suffix == ".pt" else "") + what, command


def _reading(bench: Bench, folder: Path, choice: Random) -> list[str]:
    """Return one of the commands that read a finished run."""
    run, other, output = str(folder), str(bench.runs["BPR"]), ("--output", str(bench.root / "saved" / "new"))
    if choice.random() < 0.02:  # which takes long
        return ["export", run, "--to", str(bench.root / "saved" / "new")]
    return choice.choice(
        [
            ["evaluate", run],
            [f"--resume={run}", "--epochs=2"],
            ["merge", run, *output],
            ["compare", run, other],
            ["report", run, *output],
            ["fuse", run, other, *output],
            ["probe", run],
            ["align", run],
            ["recommend", run, "--user", "u3", "--json"],
            ["--model=LLMSASRec", "--dataset=small", *bench.settings, f"--init_from={run}"],
        ]
    )


def checkpoint(bench: Bench, choice: Random) -> tuple[str, list[str]]:
    """A checkpoint is whole, but something in it is not what the model expects."""
    folder = bench.runs[choice.choice(_MODELS)]
    path = folder / choice.choice(["model.pt", "last.pt"])
    state = torch.load(path, weights_only=True)
    place: Any = state
    keys: list[Any] = []
    while isinstance(place, dict) and place and (not keys or choice.random() < 0.6):
        keys.append(choice.choice(sorted(place, key=str)))
        last, place = place, place[keys[-1]]
    plain = [value for value in VALUES if not isinstance(value, int) or abs(value) < 10]  # torch has limits
    value = choice.choice([*plain, torch.zeros(3), torch.zeros(()), torch.full((2, 2), float("nan")), b"x"])
    if choice.random() < 0.3:
        del last[keys[-1]]
        what = "removed"
    else:
        last[keys[-1]] = value
        what = f"{value!r:.60}"
    if choice.random() < 0.05:
        state = choice.choice([value, [state], {"state_dict": state}])
    torch.save(state, path)
    return f"{path.parent.name}/{path.name}: {keys} {what}", _reading(bench, folder, choice)


def cache(bench: Bench, choice: Random) -> tuple[str, list[str]]:
    """A file of the embedding cache is damaged before it is used."""
    path = choice.choice(sorted(path for path in (bench.root / "cache").rglob("*") if path.is_file()))
    way = choice.choice(BINARY)
    path.write_bytes(way(path.read_bytes(), choice))
    words = ["encode", "--dataset=small", *bench.settings]
    return f"!{path.name}: {way.__name__}", [
        "evaluate",
        str(bench.runs["LLMSASRec"]),
    ] if choice.random() < 0.8 else words


def export_folder(bench: Bench, choice: Random) -> tuple[str, list[str]]:
    """A file of an export is damaged before it answers; what it may still answer is the usual."""
    withdrawn = bench.export / "withdrawn.json"  # the one file that somebody may change
    files = sorted(path for path in bench.export.rglob("*") if path.is_file())
    path = choice.choice([withdrawn, withdrawn, *files])
    if path.suffix == ".json" and choice.random() < 0.5:
        what = _odd_value(path, path.read_bytes(), choice)
    else:
        what = _damaged_file(path, choice)
    return ("" if path == withdrawn else "!") + what, ["recommend", str(bench.export), "--user", "u3", "--json"]


_PLANS = {
    "run": b"# a run\nmodel: BPR\ndataset: small\nlearning_rate: 1e-2\neval_args: {mode: full, order: TO}\n",
    "tune": b"settings: {model: BPR, dataset: small}\nsearch:\n  learning_rate: {low: 1e-4, high: 1e-2, log: True}\n"
    b"  embedding_size: [4, 8]\ntrials: 2\npruning: True\n",
    "benchmark": b"common: {model: BPR, epochs: 1}\ndatasets:\n  small: {data_path: nowhere}\nmodels:\n"
    b"  one: {epochs: 1, seeds: [1]}\n  two: {epochs: 2}\nseeds: [1, 2]\n",
}


def file_of_settings(bench: Bench, choice: Random) -> tuple[str, list[str]]:
    """A file of settings is damaged: that of a run, of a search or of a benchmark."""
    command = choice.choice(sorted(_PLANS))
    _, content, ways = damaged("plan.yaml", _PLANS[command], choice, packed=False)
    plan = bench.root / "saved" / "BPR" / "plan.yaml"
    if choice.random() < 0.7:
        ways = _odd_value(plan, _PLANS[command], choice)
    else:
        plan.write_bytes(content)
    if command == "run":
        return ways, ["run", "--config_files", f"{bench.root / 's.json'} {plan}"]
    output = ["--output", str(bench.root / "saved" / "new")]
    if command == "tune":
        return ways, ["tune", str(plan), "--trials", "2", *bench.words, *output]  # a damaged number may be huge
    return ways, ["benchmark", str(plan), *output]


def _odd_value(path: Path, content: bytes, choice: Random) -> str:
    """Write YAML in which one value, at any depth, is another."""
    plan = yaml.load(content, SettingsLoader)
    place, keys = plan, []
    while isinstance(place, dict) and place and (not keys or choice.random() < 0.7):
        keys.append(choice.choice(sorted(place)))
        last, place = place, place[keys[-1]]
    value = choice.choice([value for value in VALUES if not isinstance(value, str) or len(value) < 99])
    if keys:
        last[keys[-1]] = value
    else:  # it is a list
        plan = value
    path.write_text(json.dumps(plan), encoding="utf-8")
    return f"{path.name}: {keys} {value!r:.60}"


def words(bench: Bench, choice: Random) -> tuple[str, list[str]]:
    """Words of a command line are changed, repeated or left out."""
    folder = bench.runs[choice.choice(_MODELS)]
    good = choice.choice(
        [
            ["--model=BPR", "--dataset=small", *bench.settings, "--learning_rate=0.01", "--topk=[10]"],
            ["evaluate", str(folder), "--split", "valid"],
            ["card", "small", *bench.settings, "--output", str(bench.root / "saved")],
            ["encode", "--dataset", "small", *bench.settings],
            ["merge", str(bench.runs["XLingTwoTower"]), "--output", str(bench.root / "saved" / "new")],
            ["compare", f"a={folder}", f"b={bench.runs['BPR']}", "--metrics", "ndcg@10", "--slices", "target_language"],
            ["report", str(folder), "--output", str(bench.root / "saved" / "new"), "--metric", "ndcg@10"],
            [
                "fuse",
                str(folder),
                str(bench.runs["BPR"]),
                "--method",
                "rrf",
                "--depth",
                "12",
                "--quota",
                "fr=1",
                "--weights",
                "1",
                "2",
                "--output",
                str(bench.root / "saved" / "new"),
            ],
            ["probe", str(folder), "--items", "15"],
            ["align", str(folder), "--items", "9", "--centered", "--output", str(bench.root / "saved" / "new")],
            ["recommend", str(folder), "--user", "u3", "-k", "4", "--languages", "fr", "de", "--include-seen"],
            ["recommend", str(bench.export), "--history", "i1,i2", "--reader", "fr", "--json"],
            ["recommend", str(folder), "--similar", "i1", "--where", "item_language=fr"],
            ["recommend", str(bench.export), "--user", "u1", "--explain", "i3", "--in", "de"],
            ["export", str(folder), "--to", str(bench.root / "saved" / "new"), "--index", "flat", "--without-users"],
            ["estimate", "--model=BPR", "--dataset=small", *bench.settings],
            [
                "tune",
                "--model=BPR",
                "--dataset=small",
                *bench.words,
                "--search={embedding_size: [4]}",
                "--trials",
                "1",
                "--output",
                str(bench.root / "saved" / "new"),
            ],
            [
                "translate",
                "small",
                "--to",
                "fr",
                "--system",
                "command",
                "--option",
                "command=cat",
                "--from",
                "en",
                "--data_path",
                str(bench.root / "data"),
                "--cache_dir",
                str(bench.root / "cache"),
            ],
        ]
    )
    made = list(good)
    values = [
        "0",
        "1",
        "2",
        "-1",
        "0.5",
        "nan",
        "1e9",
        "9" * 30,
        "",
        "x",
        "[x]",
        "{x: 1}",
        "None",
        "no",
        "a b",
        str(folder),
    ]
    odd = ["", "-", "--", "-x", "--=", "=", "--a=b", "--model", "[", "{", "é", "--seed=x", "--epochs=", "--help",
           *COMMANDS, *(part.decode("utf-8", "replace").replace("\0", "") for part in ODD)]  # fmt: skip
    for _ in range(choice.choice([1, 1, 2])):
        place = choice.randrange(len(made) + 1)
        kind = choice.randrange(8)
        options = [at for at in range(1, len(made)) if "=" in made[at] or made[at - 1].startswith("--")]
        if options and kind > 3:  # another value of an option, or of a setting
            place = choice.choice(options)
            word, equals, _ = made[place].partition("=")
            made[place] = word + equals + choice.choice(values) if equals else choice.choice(values)
        elif kind == 0:
            made.insert(place, choice.choice(odd))
        elif made and kind == 1:
            del made[place % len(made)]
        elif made and kind == 2:
            made[place % len(made)] = choice.choice(odd)
        elif made:
            word = made[place % len(made)]
            cut = choice.randrange(len(word) + 1)
            made[place % len(made)] = word[:cut] + choice.choice(["", "x", "]", "=", "-1", "nan"]) + word[cut + 1 :]
    return "words", made


def _outcome(bench: Bench, case: Case, choice: Random) -> tuple[str, str]:
    what = "preparing"
    try:
        what, command = case(bench, choice)
        what = f"{what}; {' '.join(command)}"
        code, told = bench.call(*command)
    except BaseException as error:  # polars' panics are no Exceptions
        if isinstance(error, KeyboardInterrupt):
            raise
        return what, "".join(traceback.format_exception(error, limit=-4))
    if code == 0:
        is_usual = not what.startswith("!") or bench.usual(command) in told
        return what, GOOD if is_usual else f"not the usual result: {told}"
    message = told[told.rfind("recbole-xling: ") :] if "recbole-xling: " in told else ""
    is_usage = "usage: recbole-xling" in told
    if code == 2 and (is_usage or (message and len(message.strip().splitlines()) <= 3)):
        return what, ERROR
    return what, f"exit code {code}: {told[-2000:]}"


@pytest.mark.parametrize("case", [dataset, run_folder, checkpoint, cache, export_folder, file_of_settings, words])
def test_damage_ends_in_a_result_or_a_short_error(
    case: Case, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    outcomes: Counter[str] = Counter()
    failures = []
    for number in cases(25):
        what, outcome = _outcome(bench, case, Random(f"{case.__name__} {number}"))
        bench.restore()
        outcomes[outcome if outcome in (GOOD, ERROR) else "failure"] += 1
        if outcome not in (GOOD, ERROR):
            failures.append(f"number {number}: {what}\n{outcome}")
    print(f"{case.__name__}: {dict(outcomes)}")
    assert not failures, "\n".join(failures[:20])
    assert outcomes[GOOD]
    assert outcomes[ERROR] or case is cache  # what is damaged there is made again
