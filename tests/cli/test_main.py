"""The command line as a user types it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from recbole_xling.cli import main as cli
from recbole_xling.cli import tune

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def typed(small_dataset, settings, tmp_path, monkeypatch):
    """Run the command line in a folder with the small dataset; returns exit code, output and error output."""
    small_dataset()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "settings.yaml").write_text(json.dumps(settings))

    def run(*words: str):
        return cli.main(list(words))

    return run


def test_run_ends_in_a_table_per_language(typed, capsys):
    assert typed("--model", "LLMSASRec", "--dataset", "small", "--config_files", "settings.yaml", "--epochs=1") == 0
    out = capsys.readouterr().out
    for line in ("all users", "target in: de", "reader of: fr", "mean over languages", "worst language:"):
        assert line in out
    folder = Path(re.search(r"Run folder: (.*)", out)[1])
    files = {file.name for file in folder.iterdir()}
    assert {"config.yaml", "model.pt", "result.json", "users.parquet", "log.txt", "tensorboard"} <= files
    assert "\x1b" not in (folder / "log.txt").read_text()
    result = json.loads((folder / "result.json").read_text())
    assert {"best_valid", "test", "slices", "seconds", "versions", "seed"} <= set(result)


@pytest.mark.parametrize("model", ["BPR", "SASRec", "LightGCN", "Pop", "ItemKNN"])
def test_recbole_models_run_as_baselines_with_results_per_language(
    typed, capsys, model, tmp_path, settings, settings_without_layers
):
    (tmp_path / "base.yaml").write_text(json.dumps(settings if model == "SASRec" else settings_without_layers))
    assert typed("run", "--model", model, "--dataset", "small", "--config_files", "base.yaml", "--epochs=1") == 0
    assert "target in: de" in capsys.readouterr().out


def test_a_run_from_the_config_of_another_repeats_its_results(typed, capsys):
    typed("--model=LLMSASRec", "--dataset=small", "--config_files", "settings.yaml", "--epochs=1")
    first = Path(re.search(r"Run folder: (.*)", capsys.readouterr().out)[1])
    assert typed("run", "--config_files", str(first / "config.yaml")) == 0
    second = Path(re.search(r"Run folder: (.*)", capsys.readouterr().out)[1])
    results = [json.loads((folder / "result.json").read_text()) for folder in (first, second)]
    assert first != second
    for key in ("test", "slices", "best_valid"):
        assert results[0][key] == results[1][key]


def test_encode_fills_the_cache_that_a_run_uses(typed, capsys, monkeypatch):
    assert typed("encode", "--dataset", "small", "--config_files", "settings.yaml") == 0
    assert "30 items" in capsys.readouterr().out
    from recbole_xling.encode.hashing import HashingEncoder

    monkeypatch.setattr(HashingEncoder, "encode", lambda *args: pytest.fail("encoded again"))
    assert typed("--model=LLMSASRec", "--dataset=small", "--config_files", "settings.yaml", "--epochs=1") == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train"], "unknown command 'train'"),
        (["--model=LLMSASRek", "--dataset=small"], "Did you mean 'LLMSASRec'"),
        (["--model=LLMSASRec", "--dataset=small", "--epoch=3"], "'epoch'.*'epochs'"),
        (["--model=LLMSASRec", "--dataset=small", "epochs"], "--key=value"),
        (["run", "--resume=nowhere"], "nowhere"),
        (["convert", "ml-100"], "Did you mean 'ml-100k'"),
        (["convert", "movielens"], "movielens needs --input"),
        (["convert", "movielens", "--input", "nowhere"], r"nowhere has neither ratings\.csv nor ratings\.dat"),
        (["convert", "ml-100k", "--max-bad", "2"], "between 0 and 1"),
        (["convert", "ml-100k", "--identify", "en,Klingo"], "'Klingo' names no language"),
        (["convert", "ml-100k", "--languages", "JP"], "did you mean 'ja'"),
    ],
)
def test_a_mistake_ends_in_one_line_of_error_and_exit_code_2(typed, capsys, words, message):
    assert typed(*words) == 2
    err = capsys.readouterr().err
    assert re.search(message, err)
    assert "Traceback" not in err


def test_without_a_word_the_commands_are_listed(capsys):
    assert cli.main([]) == 0
    out = capsys.readouterr().out
    assert all(f"  {command} " in out for command in ("demo", "run", "convert", "evaluate"))


def test_version_names_what_shapes_results(capsys):
    assert cli.main(["--version"]) == 0
    found = dict(line.split(" ", 1) for line in capsys.readouterr().out.splitlines())
    assert found["recbole"] == "1.2.1" and {"recbole-xling", "torch", "python"} <= found.keys()


def test_demo_is_a_run_of_the_bundled_dataset_with_the_settings_given(monkeypatch):
    called = []
    monkeypatch.setattr("recbole_xling.cli.run.run", lambda options, settings: called.append((options, settings)) or "")
    cli.main(["demo", "--epochs=3", "--nproc=2"])
    ((options, settings),) = called
    assert (options.model, options.dataset, options.nproc) == ("LLMSASRec", "ml-100k-xling", 2)
    assert settings == ["--epochs=3"]


def test_a_setting_is_not_taken_for_an_abbreviation_of_an_option(typed, capsys):
    assert typed("run", "--model=BPR", "--dataset=small", "--data=elsewhere") == 2
    assert "unknown setting 'data'" in capsys.readouterr().err


def test_a_setting_with_a_space_in_it_is_not_taken_for_an_argument_without_a_name(monkeypatch):
    seen = []
    monkeypatch.setattr(tune, "run", lambda options, settings: seen.append((options.file, options.trials, settings)))
    words = ["--model=BPR", "--eval_args={mode: full, order: TO}", "s.yaml", "--trials=3", "--data_path=my data"]
    cli.call("tune", words)
    cli.call("tune", [*words[1:2], "--search={n_layers: [1, 2]}"])
    assert seen == [("s.yaml", 3, [words[0], words[1], words[4]]), (None, None, [words[1]])]


def test_a_configuration_file_may_have_a_space_in_its_name(typed, tmp_path):
    shutil.copy(tmp_path / "settings.yaml", tmp_path / "my settings.yaml")
    assert typed("encode", "--dataset", "small", "--config_files", "my settings.yaml") == 0
    assert typed("encode", "--dataset", "small", "--config_files", "settings.yaml settings.yaml") == 0
    assert typed("encode", "--dataset", "small", "--config_files", "other settings.yaml") == 2


def test_help_on_a_converter_tells_the_files_it_expects(capsys):
    with pytest.raises(SystemExit):
        cli.main(["convert", "movielens", "--help"])
    out = capsys.readouterr().out
    for word in ("ratings.csv, movies.csv, links.csv", "ratings.dat", "--tmdb-text DIR", "--user-core K", "--strict"):
        assert word in out


def test_convert_cleans_texts_and_identifies_languages(typed, capsys, tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "clicks.csv").write_text("u,i\n" + "".join(f"u{n},{item}\n" for n in range(3) for item in "ab"))
    (raw / "shop.csv").write_text(
        "id,name\na,Eine sch&ouml;ne <b>Teekanne</b> aus gr\u00fcnem Glas\nb,A green glass teapot for two\n",
        encoding="utf-8",
    )
    words = ["convert", "table", "--input", str(raw / "clicks.csv"), "--user", "u", "--item", "i", "--in-order"]
    words += ["--items", str(raw / "shop.csv"), "--item-id", "id", "--text", "title=name", "--name", "shop"]
    assert typed(*words, "--identify", "de,en", "--output", str(tmp_path / "out")) == 0
    assert "texts changed by cleaning: html 1" in capsys.readouterr().out
    lines = (tmp_path / "out" / "shop" / "shop.itemtext.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [json.loads(line) for line in lines]
    assert [(text["language"], text["fields"]["title"]) for text in texts] == [
        ("de", "Eine sch\u00f6ne Teekanne aus gr\u00fcnem Glas"),
        ("en", "A green glass teapot for two"),
    ]


def test_convert_identifies_among_the_stated_languages_and_writes_user_profiles(typed, capsys, tmp_path):
    clicks = "".join(f"u{n},{item},{time}\n" for n in range(3) for time, item in enumerate("aabbc"))
    (tmp_path / "clicks.csv").write_text("u,i,t\n" + clicks)
    (tmp_path / "shop.csv").write_text(
        "id,name,lang\na,Eine schöne Teekanne aus grünem Glas,German\nb,A green glass teapot for two,xx\n"
        "c,Eine Kanne aus blauem Glas und zwei Tassen,eng\n",
        encoding="utf-8",
    )
    words = ["convert", "table", "--input", str(tmp_path / "clicks.csv"), "--user", "u", "--item", "i", "--time", "t"]
    words += ["--items", str(tmp_path / "shop.csv"), "--item-id", "id", "--text", "title=name", "--language", "lang"]
    words += ["--name", "shop", "--output", str(tmp_path / "out"), "--identify"]
    assert typed(*words, "--user-profile") == 0
    out = capsys.readouterr().out
    for line in (
        "no language, so und: xx 1",
        "texts by identified language: en 1",
        "stated and identified languages differ in 1 of 2 texts: en seems de 1",
        "user profiles, from all but each user's last two interactions: stated 0, derived 3, unknown 0, bilingual 0",
    ):
        assert line in out
    users = (tmp_path / "out" / "shop" / "shop.user").read_text().splitlines()
    assert users[1] == "u0\tde\tde en\t0.667 0.333\t\tderived"
    assert typed(*words, "--user-profile", "4") == 0
    users = (tmp_path / "out" / "shop" / "shop.user").read_text().splitlines()
    assert users[1] == "u0\tde\tde en\t0.5 0.5\tyes\tderived"


def test_an_unknown_dataset_is_named_with_the_nearest_one(typed, capsys):
    assert typed("--model=LLMSASRec", "--dataset=smal", "--config_files", "settings.yaml") == 2
    assert re.search(r"'smal'.*small", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("--TIME_FIELD=when", "no column 'when' .*only user_id, item_id, .*TIME_FIELD"),
        ("--topk=[31]", r"topk \[31\].*30"),
        ("--encoder_options=x", "encoder_options"),
    ],
)
def test_a_setting_that_does_not_fit_the_dataset_is_explained(typed, capsys, setting, message):
    words = ["--model=LLMSASRec", "--dataset=small", "--config_files", "settings.yaml", "--valid_metric=NDCG@10"]
    if "topk" in setting:
        words[-1] = "--valid_metric=NDCG@31"
    assert typed(*words, setting) == 2
    assert re.search(message, capsys.readouterr().err)


def test_a_folder_without_interactions_is_refused_as_dataset(typed, capsys, tmp_path):
    (tmp_path / "data" / "empty").mkdir()
    assert typed("--model=LLMSASRec", "--dataset=empty", "--config_files", "settings.yaml") == 2
    assert "empty.inter" in capsys.readouterr().err


def test_the_script_of_a_checkout_that_is_not_installed_says_what_to_type(tmp_path):
    shutil.copy(ROOT / "run_recbole_xling.py", tmp_path)
    command = [sys.executable, "-S", "-E", "run_recbole_xling.py"]  # -S: no site-packages
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode != 0
    assert "make demo" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_run_builds_the_bundled_dataset_when_it_is_missing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["--epochs=1", "--encoder=hashing", f"--embedding_cache_dir={tmp_path}", "--show_progress=False"]
    assert cli.main(["demo", *words]) == 0
    out = capsys.readouterr().out
    assert (tmp_path / "datasets" / "ml-100k-xling" / "ml-100k-xling.itemtext.jsonl").is_file()
    for line in ("target in: ja", "other language than the reader's: yes", "item: cold"):
        assert line in out


@pytest.mark.slow
def test_the_demo_of_languages_draws_what_readers_of_each_get(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["--epochs=1", "--encoder=hashing", f"--embedding_cache_dir={tmp_path}", "--show_progress=False"]
    assert cli.main(["demo", "--languages", *words]) == 0
    picture = capsys.readouterr().out.rpartition("ndcg@10 by the reader's language\n\n")[2].splitlines()
    assert "readers of en (in-language, 471)" in picture[0] and "readers of ja (zero-shot, 472)" in picture[0]
    results = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("saved/*/result.json"))]
    drawn = {line.partition("  ")[0].strip(): re.findall(r"(█*) +(0\.[0-9]{4})", line) for line in picture[1:5]}
    assert list(drawn) == ["popularity", "EASE (ids alone)", "texts as readers see them", "texts in all languages"]
    measured = {tuple(f"{r['slices'][f'user_language={tag}']['ndcg@10']:.4f}" for tag in ("en", "ja")) for r in results}
    assert {tuple(value for _, value in row) for row in drawn.values()} == measured
    bars = sorted((float(value), len(bar)) for row in drawn.values() for bar, value in row)
    assert [length for _, length in bars] == sorted(length for _, length in bars) and bars[-1][1] == 28
    assert (tmp_path / "report.html").is_file()


@pytest.mark.parametrize("words", [["encode", "--dataset", "small"], ["card", "small"]])
@pytest.mark.parametrize(
    "settings_of_a_run",
    [
        {"model": "XLingTwoTower", "user_tower": "attention", "peft": "lora", "lora_rank": 4, "train_batch_size": 32},
        {"user_tower": "attention", "sub_batch_size": 16, "init_adapter_from": "saved/earlier"},
        {"model": "BPR", "embedding_size": 32, "train_neg_sample_args": {"distribution": "uniform", "sample_num": 1}},
        {"num_layers": 3, "loss_type": "BPR", "learner": "adagrad"},
    ],
)
def test_commands_about_datasets_accept_the_configuration_file_of_any_run(typed, tmp_path, words, settings_of_a_run):
    kept = ("data_path", "embedding_cache_dir", "encoder", "encoder_options", "load_col", "topk", "show_progress")
    basis = json.loads((tmp_path / "settings.yaml").read_text())
    (tmp_path / "run.yaml").write_text(json.dumps({key: basis[key] for key in kept} | settings_of_a_run))
    assert typed(*words, "--config_files", "run.yaml") == 0


@pytest.mark.parametrize("words", [["encode", "--dataset", "small"], ["card", "small"]])
def test_commands_about_datasets_refuse_a_setting_that_no_model_has(typed, capsys, words):
    assert typed(*words, "--config_files", "settings.yaml", "--hiden_size=3") == 2
    assert "unknown setting 'hiden_size'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["demo"],
        ["run"],
        ["convert"],
        ["convert", "movielens"],
        ["translate"],
        ["card"],
        ["encode"],
        ["evaluate"],
        ["merge"],
    ],
)
def test_help_is_printed_without_loading_torch_or_recbole(words):
    code = (
        "import sys; from recbole_xling.cli.main import main\n"
        f"try: main({[*words, '--help']})\n"
        "except SystemExit: pass\n"
        "print([name for name in ('torch', 'recbole', 'transformers') if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(("usage: recbole-xling", "recbole-xling <command>"))
    assert done.stderr.splitlines()[-1] == "[]"
