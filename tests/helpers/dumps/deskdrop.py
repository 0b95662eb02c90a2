"""DeskDrop: articles that colleagues shared, and what they did with them."""

from __future__ import annotations

from pathlib import Path

ARTICLES = """timestamp,eventType,contentId,authorPersonId,contentType,url,title,text,lang
1459192779,CONTENT REMOVED,-1,7,HTML,http://a,"Gone, as a row tells",Text,en
1459192780,CONTENT SHARED,-1,7,HTML,http://a,"Ethereum, a ""chain"" again","One text,
with two lines",en
1459193988,CONTENT SHARED,2,7,HTML,http://b,Cidades de amanhã,Um texto,pt
1459193989,CONTENT SHARED,2,7,HTML,http://b,Shared again,Other text,en
1459193990,CONTENT SHARED,3,7,HTML,http://c,Without language,,
"""
EVENTS = [
    (1465413032, "VIEW", "-1", "-8"),
    (1465413040, "LIKE", "-1", "-8"),
    (1465413050, "COMMENT CREATED", "2", "-8"),
    (1465413060, "DISLIKE", "3", "9"),
    (1465413070, "BOOKMARK", "2", "9"),
    (1465413080, "FOLLOW", "-1", "9"),
    (1465413090, "WAVE", "2", "10"),
    (1465413100, "VIEW", "77", "10"),
]


def write(folder: Path) -> None:
    rows = "".join(f"{time},{event},{item},{user},s,agent,SP,BR\n" for time, event, item, user in EVENTS)
    head = "timestamp,eventType,contentId,personId,sessionId,userAgent,userRegion,userCountry\n"
    (folder / "users_interactions.csv").write_text(head + rows)
    (folder / "articles.csv").write_text(ARTICLES, encoding="utf-8")
