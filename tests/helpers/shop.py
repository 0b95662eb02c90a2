"""A shop that sells the same products in several countries, in the language of each."""

from __future__ import annotations

import json
from pathlib import Path

MARKETS = {"DE": "de", "FR": "fr", "UK": "en"}
WORDS = {
    "de": ("rot", "blau", "Hose", "Hemd", "Schuh"),
    "fr": ("rouge", "bleu", "pantalon", "chemise", "chaussure"),
    "en": ("red", "blue", "trousers", "shirt", "shoe"),
}


def write_shop(root: Path, name: str = "shop", *, n_items: int = 24, stated: bool = True, silent: int = 0) -> Path:
    """Write a shop with twelve customers in each market, who walk along neighboring items; texts are shown in German.

    Item 0 has no French text, and item 1 no English one.

    Args:
        root: what ``data_path`` is set to.
        name: the dataset's name.
        n_items: number of products.
        stated: whether the ``.user`` file has the column ``user_language``.
        silent: how many of the first customers leave it empty.

    Returns:
        The folder of the dataset.
    """
    folder = root / name
    folder.mkdir(parents=True)
    lines = ["user_id:token\titem_id:token\ttimestamp:float"]
    users = [f"user_id:token{chr(9)}market:token{chr(9)}age:float{chr(9)}likes:token_seq"]
    users[0] += "\tuser_language:token" if stated else ""
    for user in range(36):
        market = list(MARKETS)[user % 3]
        language = "" if user < silent else MARKETS[market]
        likes = ("", "shoes", "hats shoes")[user // 3 % 3]
        users.append(f"u{user}\t{market}\t{20 + user}\t{likes}" + (f"\t{language}" if stated else ""))
        for step in range(5):
            lines.append(f"u{user}\ti{(user * 5 + step) % n_items}\t{step}")
    items = ["item_id:token\tcategory:token\titem_language:token"]
    items += [f"i{item}\tc{item % 2}\tde" for item in range(n_items)]
    texts = []
    for item in range(n_items):
        for language, words in WORDS.items():
            if (item, language) in ((0, "fr"), (1, "en")):
                continue
            title = f"{words[item % 2]} {words[2 + item % 3]} {item}"
            source = "display" if language == "de" else "parallel"
            texts.append({"item_id": f"i{item}", "language": language, "fields": {"title": title}, "source": source})
    for suffix, rows in (("inter", lines), ("user", users), ("item", items)):
        (folder / f"{name}.{suffix}").write_text("\n".join(rows) + "\n", encoding="utf-8")
    (folder / f"{name}.itemtext.jsonl").write_text("".join(json.dumps(text) + "\n" for text in texts), encoding="utf-8")
    return folder
