"""Small words that tell where a sentence or a breath ends, in the languages that are spoken."""

from __future__ import annotations


def words(text: str) -> frozenset[str]:
    """Return the words of a list that is written as a text."""
    return frozenset(text.split())


# A point after a title or after these never ends a sentence ...
TITLES = words(
    "Dr Mr Mrs Ms Mx Prof Gen Gov Sen Rep Capt Lt Col Sgt Cmdr Rev Hon Pres Cpl Maj Adm Fr "
    "Msgr Sr Sra Srta Dra Mme Mlle Dott Sig "
)
NEVER = words("vs cf e.g i.e eg z.b d.h bzw approx p.ej ")
# ... after these it does not where a number follows ("No. 5", "Jan. 3") ...
BEFORE_NUMBER = words(
    "no nos fig figs vol ch p pp ca c art sec tel ext jan feb mar apr jun jul aug sep sept "
    "oct nov dec nr núm nº "
)
# ... after these it does where a capital follows ...
PERHAPS = words("etc a.m p.m am pm inc ltd co corp jr bros ph.d m.d b.c a.d al ")
# ... and after these only where a word follows that begins many sentences.
CAREFULLY = words("st mt ft ave blvd rd dept est ")
STARTERS = words(
    "the a an it its this that these those there here he she they we you i my our his her "
    "their in on at as if so but and or however for from when while what who how why is are "
    "was do does to also then after before since because although yes no let please not "
)
# A long clause without punctuation may be cut before these.
BREAK_BEFORE = words(
    "and but or nor so yet because which that who whom whose when where while if with without "
    "for from in on at by into onto about after before since until although though than as "
    "between through during within across against toward towards under over rather including "
    "such y e pero porque que con para por en cuando donde aunque sin sobre et mais ou parce "
    "qui avec pour dans quand sans sur ma perché che per quando dove senza mas com sem onde "
    "und aber oder weil dass mit für "
)
