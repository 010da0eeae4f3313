"""A text of many works as documents, for every connector that can bring one.

>>> [(i.stem, i.author, i.role) for i in works_of(text, collection, place=place, where="18.txt", url="")][9:11]
[('10', 'James Madison', 'primary'), ('11', 'Alexander Hamilton', 'control')]
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from foundry_pipeline.corpus.collections import CollectedWork, split_collection
from foundry_pipeline.corpus.connectors.base import Item, Place
from foundry_pipeline.declarations.collections import Collection
from foundry_pipeline.declarations.sources import SourceManifest
from foundry_pipeline.errors import DeclarationError


def works_of(
    text: str, collection: Collection, *, place: Place, where: str, url: str, date: str = ""
) -> Iterator[Item]:
    """The works of a text as items, variants after the works they are variants of.

    `date` is that of works which have none of their own. Raises DeclarationError as `split_collection` does, and naming
    every work that stays without a date.
    """
    manifest = place.manifest
    split = split_collection(text, collection, author=manifest.author, role=manifest.role, where=where)
    undated = [w.number for w in split.works if not (w.date or date)]
    if undated:
        raise DeclarationError(
            f"{len(undated)} works have no date: {', '.join(undated[:20])}",
            where=f"{where}, `collection`",
            mend="give their dates under `works` (`'1-5': {date: 1787}` dates five), or one for all as `date`",
        )
    dates = {w.number: w.date or date for w in split.works}
    stems = {w.number: collection.stem.format(number=w.number) for w in split.works}
    if len(set(stems.values())) < len(stems):
        twice = next(stem for stem, count in Counter(stems.values()).items() if count > 1)
        raise DeclarationError(
            f"two works are called {twice!r}", where=f"{where}, `collection.stem`", mend="use {number} in the pattern"
        )
    facts = [f"{count} {name}" for name, count in split.counts.items()]
    for index, work in enumerate(split.works):
        variants = [v for v in split.variants if v.number == work.number]
        said = [r.partition(": ")[2] for r in split.remarks if r.startswith(f"{work.number}: ")]
        if variants:
            said.append(f"printed {1 + len(variants)} times; the other printing is kept as a variant")
        if not index and facts:
            said.append(f"of the whole collection: {', '.join(facts)}")
        yield _item(work, stems[work.number], dates[work.number], manifest, where, url, said)
        for variant in variants:
            alike = f"printing {variant.printing} of `{stems[work.number]}`, shares {variant.alike:.0%} of its words"
            item = _item(
                variant, f"{stems[work.number]}_v{variant.printing}", dates[work.number], manifest, where, url, [alike]
            )
            yield replace(item, variant_of=stems[work.number])


def _item(
    work: CollectedWork, stem: str, date: str, manifest: SourceManifest, where: str, url: str, said: list[str]
) -> Item:
    if work.attribution:
        said = [f"attributed {work.attribution}", *said]
    return Item(
        stem=stem,
        where=f"{where}, {work.number}",
        text=work.text,
        title=work.title or f"{manifest.title}, No. {work.number}",
        date=date,
        url=url,
        author=work.author,
        role=work.role,
        remarks="; ".join(said),
    )
