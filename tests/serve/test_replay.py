"""Replaying interactions: against asking for each of them alone, equal times, what is known already, and a server."""

from __future__ import annotations

import csv
import json
import math
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import StringIO

import numpy as np
import pytest

from recbole_xling.cli import replay as command
from recbole_xling.cli.main import call
from recbole_xling.cli.replay import _time
from recbole_xling.errors import ConfigError, DataError, XlingError
from recbole_xling.serve import Catalog, Recommender, Users
from recbole_xling.serve.asking import AskExport, AskServer
from recbole_xling.serve.events import read_events
from recbole_xling.serve.popularity import PopularitySoFar
from recbole_xling.serve.replay import Replay
from recbole_xling.serve.vectors import Tower, VectorScorer, View

N_ITEMS, HOUR = 30, 3600
START = 1_700_000_000 // HOUR * HOUR
NOTHING = np.empty(0, dtype=np.int64)


def last_item(given):
    """Return the vector of the last item, as a user tower."""
    last = np.maximum(given["item_seq_len"] - 1, 0)
    return given["items"][np.arange(len(last)), last]


def made(*, known=True, by_user=False):
    """Return a recommender of items in two languages; user k0 has chosen i1 and i2, user k1 has chosen i3."""
    rng = np.random.default_rng(0)
    items = rng.normal(size=(N_ITEMS, 6)).astype(np.float32)
    tokens = ["[PAD]", *(f"i{item}" for item in range(1, N_ITEMS))]
    languages = [["und", *(("de", "fr")[item % 2] for item in range(1, N_ITEMS))]]
    counts = np.array([0, *rng.integers(0, 9, N_ITEMS - 1)])
    catalog = Catalog(tokens, [tokens], languages, {}, counts, (), dict)
    view = View(items, items, np.zeros(N_ITEMS, dtype=np.int64), np.ones(N_ITEMS, dtype=bool), NOTHING)
    users = rng.normal(size=(3, 6)).astype(np.float32) if by_user else Tower(last_item, 10, {})
    scorer = VectorScorer("model", [view], np.zeros(N_ITEMS, np.float32), 6, users, without_history=False)
    histories = np.array([1, 2, 3]) if known else NOTHING
    starts = np.array([0, 0, 2, 3]) if known else np.zeros(4, dtype=np.int64)
    served = Users(["[PAD]", "k0", "k1"], ["und", "de", "fr"], starts, histories, spoken=["de", "fr"])
    return Recommender(catalog, served, scorer)


def write(tmp_path, rows, name="new"):
    folder = tmp_path / name
    folder.mkdir(exist_ok=True)
    lines = ["user_id:token\titem_id:token\ttimestamp:float", *("\t".join(map(str, row)) for row in rows)]
    (folder / f"{name}.inter").write_text("\n".join(lines) + "\n")
    return folder / f"{name}.inter"


def events_of(tmp_path, rows):
    return read_events(write(tmp_path, rows), ("user_id", "item_id", "timestamp"))


def replayed(recommender, events, **options):
    options = {"by_user": recommender.scorer.by_user, "k": 5, **options}
    replay = Replay(recommender.catalog, recommender.users, AskExport(recommender), **options)
    return [line for _, ready in replay.run(events) for line in ready]


def drawn(seed, n=300, n_users=20):
    rng = np.random.default_rng(seed)
    users = [f"n{user}" for user in range(n_users)] + ["k0", "k1"]
    return [
        (users[rng.integers(len(users))], f"i{rng.integers(1, N_ITEMS + 3)}", START + int(rng.integers(0, 5 * HOUR)))
        for _ in range(n)
    ]


def one_by_one(recommender, rows, k):
    """Measure as the description says, with one question for each interaction; times are all different."""
    histories = {"k0": ["i1", "i2"], "k1": ["i3"]}
    counts = recommender.catalog.counts.astype(float).copy()
    found = {}
    for user, item, time in sorted(rows, key=lambda row: row[2]):
        history, number = histories.setdefault(user, []), recommender.catalog.number
        place = number.get(item, 0)
        language = recommender.catalog.languages[0][place] if place else "und"
        line = found.setdefault((time // HOUR, str(language)), dict.fromkeys(("n", "hit", "gain", "pop", "repeat"), 0))
        if place and item in history:
            line["repeat"] += 1
        else:
            line["n"] += 1
            (answer,) = recommender.recommend_histories([history], k, users=[user])
            items = [found.item for found in answer.items]
            if item in items:
                line["hit"] += 1
                line["gain"] += 1 / math.log2(2 + items.index(item))
            seen = [number[token] for token in history if token in number]
            left = np.delete(counts, [0, *seen])
            line["pop"] += bool(place) and (left > counts[place]).sum() < k  # ties are left to the test of the order
        history.append(item)
        counts[place] += bool(place)
    return found


@pytest.mark.parametrize("seed", [0, 1])
def test_it_measures_what_asking_for_each_alone_does(tmp_path, seed):
    rows = [(user, item, time + place / 1000) for place, (user, item, time) in enumerate(drawn(seed))]
    recommender = made()
    lines = replayed(recommender, events_of(tmp_path, rows))
    expected = one_by_one(recommender, rows, 5)
    periods = sorted({period for period, _ in expected})
    found = {(line["period"], line["language"]): line for line in lines}
    assert len({line["period"] for line in lines}) == len(periods) + 1
    for (period, language), line in expected.items():
        name = np.datetime64(int(period) * HOUR, "s").item().strftime("%Y-%m-%dT%H:00Z")
        got = found[name, language]
        assert (got["interactions"], got["repeats"]) == (line["n"], line["repeat"])
        if line["n"]:
            assert got["hit@5"] == pytest.approx(line["hit"] / line["n"])
            assert got["ndcg@5"] == pytest.approx(line["gain"] / line["n"])
            assert got["popularity_hit@5"] <= line["pop"] / line["n"] + 1e-9
    total = found["all", "all"]
    assert total["interactions"] == sum(line["n"] for line in expected.values())
    assert total["hit@5"] * total["interactions"] == pytest.approx(sum(line["hit"] for line in expected.values()))
    assert total["unknown_items"] == found["all", "und"]["interactions"] > 0
    assert found["all", "und"]["hit@5"] == 0


def test_order_of_rows_and_equal_times_do_not_matter(tmp_path):
    rows = drawn(3)  # some at the same time
    rows += [("n1", f"i{item}", START + 9) for item in range(1, 9)]
    lines = replayed(made(), events_of(tmp_path, rows))
    assert replayed(made(), events_of(tmp_path, rows[::-1])) == lines
    first = replayed(made(), events_of(tmp_path, [("a", "i1", START), ("a", "i2", START), ("a", "i2", START)]))
    assert first[-1]["fallbacks"] == 2 and first[-1]["interactions"] == 2  # nothing was known before that moment
    second = replayed(made(), events_of(tmp_path, [("a", "i1", START), ("a", "i2", START + 1)]))
    assert second[-1]["fallbacks"] == 1


def test_popularity_so_far_is_kept_in_order():
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 4, 50)
    popular, shown = PopularitySoFar(counts.copy()), rng.random(50) < 0.9
    for item in rng.integers(0, 50, 500).tolist():
        popular.add(item)
        counts[item] += 1
        without = set(rng.integers(0, 50, 5).tolist())
        best = popular.best(7, without, shown)
        allowed = [other for other in range(50) if shown[other] and other not in without]
        assert counts[best].tolist() == sorted(counts[allowed].tolist(), reverse=True)[:7]
        assert set(best) <= set(allowed)


def test_what_the_export_knows_is_no_test_of_it(tmp_path):
    rows = [("k0", "i1", START), ("k0", "i2", START + 1), ("k1", "i3", START + 2), ("n1", "i3", START + 3)]
    with pytest.raises(ConfigError, match="the export knows 3 of the 4 interactions already"):
        replayed(made(), events_of(tmp_path, rows))
    lines = replayed(made(), events_of(tmp_path, rows), from_empty=True)
    assert lines[-1]["interactions"] == 4 and lines[-1]["repeats"] == 0
    later = replayed(made(), events_of(tmp_path, [*rows, ("k0", "i5", START + 9)]), from_empty=True, begin=START + 9)
    assert later[-1]["interactions"] == 1 and later[-1]["fallbacks"] == 0  # his history was replayed
    with pytest.raises(ConfigError, match="knows readers by their ids"):
        replayed(made(by_user=True), events_of(tmp_path, rows), from_empty=True)


def test_readers_that_a_model_of_ids_does_not_know_get_what_is_chosen_most(tmp_path):
    lines = replayed(made(by_user=True), events_of(tmp_path, [("k0", "i9", START), ("n1", "i9", START + 1)]))
    assert (lines[-1]["fallbacks"], lines[-1]["interactions"]) == (1, 2)


def test_a_damaged_file_is_refused(tmp_path):
    path = write(tmp_path, [("a", "i1", "soon")])
    with pytest.raises(DataError, match=r"line 2: the time 'soon' is no number, and no date like 2024"):
        read_events(path, ("user_id", "item_id", "timestamp"))
    with pytest.raises(DataError, match="no column 'time'; its columns are user_id"):
        read_events(path, ("user_id", "item_id", "time"))
    with pytest.raises(DataError, match="has no interaction"):
        read_events(write(tmp_path, []), ("user_id", "item_id", "timestamp"))
    with pytest.raises(DataError, match="does not exist"):
        read_events(tmp_path / "gone", ("user_id", "item_id", "timestamp"))


@pytest.mark.parametrize(
    ("line", "message"),
    [(b"a\t\xff\t1\n", r"new\.inter:3: .* not valid utf-8"), (b"a\ti1\n", r"new\.inter:3: 2 cells")],
)
def test_a_line_that_is_no_text_or_lacks_a_value_is_named(tmp_path, line, message):
    path = write(tmp_path, [("a", "i1", START)])
    path.write_bytes(path.read_bytes() + line)
    with pytest.raises(DataError, match=message):
        read_events(path, ("user_id", "item_id", "timestamp"))


def test_rows_without_a_user_or_an_item_are_left_out_and_counted(tmp_path, caplog):
    rows = drawn(6, n=50)
    expected = replayed(made(), events_of(tmp_path, rows))
    assert caplog.messages == []
    lacking = [("n1", "", START), ("", "i1", START + 1), ("", "", "")]
    assert replayed(made(), events_of(tmp_path, [lacking[0], *rows, *lacking[1:]])) == expected
    (message,) = caplog.messages
    assert message.endswith("new.inter': 3 rows without a user or an item are left out")
    with pytest.raises(DataError, match="has no interaction"):
        events_of(tmp_path, lacking)


def test_long_fields_are_read(tmp_path):
    assert events_of(tmp_path, [("a" * 200_000, "i1", START)]).user_tokens == ["a" * 200_000]


def test_times_are_read_as_in_a_run(tmp_path, caplog):
    rows = [("a", "i1", "2024-02-20T11:13:51+00:00"), ("b", "i2", ""), ("a", "i3", "2024-02-21")]
    events = events_of(tmp_path, rows)
    assert events.times.tolist() == [1708427631.0, 1708473600.0] and "1 rows without a time" in caplog.text
    with pytest.raises(DataError, match=r"line 3: the time '2024-02-21' is no number as others are"):
        events_of(tmp_path, [("a", "i1", "1708427631"), ("a", "i3", "2024-02-21")])
    with pytest.raises(DataError, match="is no number"):
        events_of(tmp_path, [("a", "i1", "inf")])


def test_measuring_may_begin_at_a_date(tmp_path):
    events = events_of(tmp_path, [("a", "i1", 1708427631000), ("a", "i3", 1708473600000)])
    assert _time("2024-02-21", events) == 1708473600000.0 and _time("17", events) == 17.0
    with pytest.raises(ConfigError, match="'yesterday' is not a time; write it like"):
        _time("yesterday", events)
    with pytest.raises(ConfigError, match="--begin is a date, and the times of the interactions are none"):
        _time("2024-02-21", events_of(tmp_path, [("a", "i1", 1), ("a", "i3", 2)]))


@pytest.mark.parametrize("begin", [START + 10, math.nan, math.inf])
def test_nothing_to_measure_is_an_error(tmp_path, begin):
    with pytest.raises(ConfigError, match="to begin at"):
        replayed(made(), events_of(tmp_path, [("a", "i1", START), ("a", "i2", START + 9)]), begin=begin)


@pytest.fixture
def command_line(tmp_path, monkeypatch):
    """Let the command find a recommender in place of a folder."""
    recommender = made()
    monkeypatch.setattr("recbole_xling.serve.folder.load_export", lambda folder: recommender)
    write(tmp_path, drawn(5, n=80))
    (tmp_path / "new" / "new.user").write_text("user_id:token\tuser_language:token\nn1\tfr\n")
    assert command
    return recommender, ["export", "--dataset", "new", "--data_path", str(tmp_path)]


def test_the_command_writes_json_lines_and_csv(command_line, tmp_path):
    recommender, words = command_line
    printed = [json.loads(line) for line in call("replay", [*words, "-k", "5"]).splitlines()]
    assert printed == replayed(recommender, events_of(tmp_path, drawn(5, n=80)))
    told = call("replay", [*words, "--csv", "--per", "day", "--output", str(tmp_path / "out.csv")])
    rows = list(csv.DictReader(StringIO((tmp_path / "out.csv").read_text())))
    assert {row["period"] for row in rows} <= {"2023-11-14", "2023-11-15", "all"}
    assert told.splitlines()[1].startswith("all,") and told.endswith("out.csv")
    with pytest.raises(ConfigError, match="unknown period 'week'"):
        call("replay", [*words, "--per", "week"])
    with pytest.raises(ConfigError, match="is a folder"):
        call("replay", [*words, "--output", str(tmp_path)])


def test_stated_languages_are_those_of_the_file_or_an_error(command_line, tmp_path, monkeypatch):
    _, words = command_line
    given, init = [], Replay.__init__

    def noted(self, *arguments, reads, **options):
        given.append(reads)
        init(self, *arguments, reads=reads, **options)

    monkeypatch.setattr(Replay, "__init__", noted)
    users = tmp_path / "new" / "new.user"
    call("replay", words)
    users.write_text("user_id:token\tage:float\nn1\t9\n")  # nobody states one
    call("replay", words)
    users.write_text("user_id:token\tuser_language:token\tlanguage_source:token\nn1\tfr\tderived\nn2\tde\tstated\n")
    call("replay", words)
    assert given == [{"n1": "fr"}, {}, {"n2": "de"}]
    for damaged in (b"n2\n", b"n2\t\xff\n"):
        users.write_bytes(b"user_id:token\tuser_language:token\nn1\tfr\n" + damaged)
        with pytest.raises(DataError, match=r"new\.user:3: "):
            call("replay", words)


def test_a_server_gives_the_same_lines(command_line, tmp_path, monkeypatch):
    recommender, words = command_line
    asked = []

    class Serve(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            histories, k = body.pop("histories"), body.pop("k")
            asked.append((int(self.headers["Content-Length"]), len(histories)))
            answers = recommender.recommend_histories(histories, k, **body)
            told = json.dumps({"answers": [answer.record() for answer in answers]}).encode()
            self.send_response(200 if len(histories) <= 32 else 422)
            self.send_header("Content-Length", str(len(told)))
            self.end_headers()
            self.wfile.write(told)

        def log_message(self, *args):
            pass

    server = HTTPServer(("127.0.0.1", 0), Serve)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    try:
        assert call("replay", [*words, "--url", url]) == call("replay", words)
        with pytest.raises(XlingError, match="refuses a request"):
            AskServer(f"{url}")._post("/recommend", json.dumps({"histories": [["i1"]] * 40, "k": 5}).encode())
        monkeypatch.setattr("recbole_xling.serve.asking.MOST_BYTES", 100)
        whole = len(asked)
        assert call("replay", [*words, "--url", url]) == call("replay", words)
        assert all(size <= 100 or n == 1 for size, n in asked[whole:]) and len(asked) > 2 * whole
    finally:
        server.shutdown()
        server.server_close()
    with pytest.raises(XlingError, match="does not answer"):
        call("replay", [*words, "--url", url])
    with pytest.raises(ConfigError, match="must begin with http"):
        AskServer("file:///etc/passwd")
