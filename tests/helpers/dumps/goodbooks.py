"""goodbooks-10k in its second release."""

from __future__ import annotations

from pathlib import Path

BOOKS = """book_id,goodreads_book_id,best_book_id,work_id,books_count,isbn,isbn13,authors,original_publication_year,original_title,title,language_code,average_rating,image_url
1,2767052,2767052,2792775,272,439023483,9.78043902348e+12,Suzanne Collins,2008.0,The Hunger Games,"The Hunger Games (The Hunger Games, #1)",eng,4.34,https://i/1.jpg
2,3,3,4640799,491,439554934,9.78043955493e+12,"J.K. Rowling, Mary GrandPré",1997.0,Harry Potter and the Philosopher's Stone,"Harry Potter and the Sorcerer's Stone (Harry Potter, #1)",en-US,4.44,https://i/2.jpg
3,1371,1371,3293141,1726,140275363,9.78014027536e+12,"Homer, Robert Fagles",-750.0,Ἰλιάς,The Iliad,en-CA,3.83,https://i/3.jpg
4,157993,157993,2180358,1000,156012197,9.78015601219e+12,Antoine de Saint-Exupéry,1943.0,Le Petit Prince,Le Petit Prince,fre,4.28,https://i/4.jpg
5,63033,63033,61069,100,8401242282,9.78840124228e+12,"Isabel Allende",1982.0,,La casa de los espíritus,spa,4.2,https://i/5.jpg
6,9460487,9460487,1,10,,,"Harry Mulisch",,De Aanslag,De aanslag ,nl,3.7,https://i/6.jpg
7,862041,2962492,2,76,545044251,9.78054504425e+12,J.K. Rowling,1998.0,Complete Harry Potter Boxed Set,"Harry Potter Boxed Set, Books 1-5 (Harry Potter, #1-5)",mul,4.74,https://i/7.jpg
8,17851885,16240761,3,30,,,Unknown,2013.0,"I ""Am"" Malala",I Am Malala,,4.1,https://i/8.jpg
9,700,700,4,1,,,بزرگ علوی,1952.0,چشمهایش,چشمهایش,per,3.9,https://i/9.jpg
10,800,800,5,1,,,Jo Nesbø,2007.0,Snømannen,Snømannen (Harry Hole 7),nor,4.0,https://i/10.jpg
11,900,900,6,1,,,Isabel Allende,2000.0,Retrato en sepia,Portrait in Sepia,en-GB,3.9,https://i/11.jpg
"""  # noqa: E501


def write(folder: Path) -> None:
    rows = "".join(f"{1 + i // 4},{1 + i * 7 % 11},{1 + i % 5}\n" for i in range(24))
    (folder / "ratings.csv").write_text(f"user_id,book_id,rating\n{rows}")
    (folder / "books.csv").write_text(BOOKS, encoding="utf-8")
