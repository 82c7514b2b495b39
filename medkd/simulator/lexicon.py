"""The words the reader knows: conditions, symptoms, medicines and allergens, and where a text mentions them.

The clinic's own tables come first; the lists below add what real conversations speak of.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from medkd.simulator.ailments import AILMENTS
from medkd.simulator.formulary import DRUGS
from medkd.simulator.people import ALLERGIES, CONDITIONS, FAMILY_CONDITIONS

Kind = Literal["condition", "symptom", "drug", "allergen"]

_MORE_CONDITIONS = """
diabetes, prediabetes, high blood sugar, low blood pressure, heart attack, heart problems, heart failure, congestive heart
failure, coronary disease, arrhythmia, blood clots, blood clot, pulmonary embolism, cancer, skin cancer, prostate cancer,
ovarian cancer, cervical cancer, stomach cancer, pancreatic cancer, liver cancer, brain tumor, leukemia, lymphoma, melanoma,
multiple myeloma, tumor, emphysema, chronic bronchitis, seasonal allergies, hay fever, acid reflux, reflux, ulcers, ulcer,
hiatal hernia, hernia, pancreatitis, cirrhosis, hepatitis, hepatitis A, kidney failure, kidney disease, renal failure, bladder
infection, enlarged prostate, prostatitis, arthritis, degenerative joint disease, scoliosis, spinal stenosis, herniated disc,
radiculopathy, bunion, fracture, dementia, anxiety, schizophrenia, mental illness, autism, Down syndrome, cerebral palsy,
thyroid disease, thyroid problems, goiter, cataracts, macular degeneration, HIV, AIDS, chickenpox, measles, mumps, meningitis,
sepsis, osteomyelitis, anemia, sickle cell disease, hemophilia, fibroids, miscarriage, preeclampsia, eczema, lupus,
sarcoidosis, seizure disorder, concussion, stroke, mini stroke, aneurysm, high triglycerides, sleep disorder, alcoholism,
substance abuse, croup, RSV, bunions, carpal tunnel, neuropathy, colitis, polyps
"""
_MORE_SYMPTOMS = """
pain, abdominal pain, belly pain, low back pain, lower back pain, neck pain, hand pain, finger pain, rib pain, jaw pain, tooth
pain, stomach ache, stomachache, headache, migraines, dizziness, lightheadedness, fainting, fever, chills, night sweats,
sweats, nausea, vomiting, diarrhea, constipation, bloating, blood in stool, black stools, cough, sore throat, runny nose,
congestion, sneezing, wheezing, breathlessness, trouble breathing, difficulty breathing, chest pressure, swelling, itchiness,
itching, rash, bruises, bleeding, numbness, tingling, weakness, tiredness, fatigue, loss of appetite, weight loss, weight
gain, blurry vision, double vision, vision changes, hearing loss, ringing in my ears, insomnia, confusion, hallucinations,
memory problems, cramps, cramping, spasms, soreness, discharge, incontinence, painful urination, burning when I urinate, hot
flashes, heart palpitations, tremors, nosebleed, dry mouth, hoarseness, stuffiness, snoring, depressed mood, anxiousness, mood
swings, lump
"""
_MORE_DRUGS = """
Tylenol, Advil, Motrin, Aleve, Benadryl, Claritin, Zyrtec, Allegra, Flonase, Singulair, Advair, Symbicort, Ventolin,
salmeterol, Lipitor, Crestor, Zocor, Zetia, Plavix, Coumadin, Xarelto, Eliquis, Lasix, Norvasc, Diovan, Cozaar, Toprol,
Lopressor, atenolol, clonidine, hydralazine, digoxin, amiodarone, potassium, Synthroid, insulin, Lantus, Humalog, Januvia,
Ozempic, glyburide, Actos, Prilosec, Nexium, Protonix, Prevacid, Pepcid, Zantac, ranitidine, Pepto Bismol, Tums, Imodium,
Colace, Miralax, Zoloft, Prozac, Paxil, Lexapro, Celexa, citalopram, Cymbalta, Effexor, Wellbutrin, Xanax, alprazolam, Ativan,
lorazepam, Klonopin, clonazepam, Valium, diazepam, Ambien, Seroquel, Risperdal, Zyprexa, Abilify, Lamictal, Depakote,
Dilantin, Tegretol, Keppra, Neurontin, Topamax, Aricept, Namenda, Ritalin, Adderall, morphine, oxycodone, OxyContin, Percocet,
Vicodin, hydrocodone, Norco, Demerol, fentanyl, methadone, Flexeril, Skelaxin, Celebrex, Mobic, Toradol, Imitrex, Accutane,
Bactrim, Septra, Keflex, Augmentin, Zithromax, Z-Pak, Cipro, Levaquin, Flagyl, Diflucan, Valtrex, Tamiflu, erythromycin,
tetracycline, vancomycin, gentamicin, Premarin, Viagra, Cialis, Flomax, Proscar, Avodart, Fosamax, Boniva, calcium,
multivitamin, fish oil, vitamin C, folate, iron, magnesium, zinc, melatonin, aspirin, Humira, Enbrel, prednisolone, cortisone,
Medrol
"""
_MORE_ALLERGENS = """
bees, bee stings, wasps, latex, adhesive tape, tape, contrast dye, iodine, nuts, peanuts, shellfish, seafood, fish, milk,
dairy, gluten, wheat, soy, eggs, cats, dogs, dust, dust mites, mold, ragweed, grass, trees, pollen, sulfa, sulfa drugs,
penicillin, codeine, anesthesia, nickel, kiwi, bananas, strawberries, chocolate, tomatoes
"""

# Endings of generic names; they catch medicines that no list here has.
_DRUG_ENDING = re.compile(
    r"[a-z]{3,}(?:cillin|mycin|floxacin|cycline|conazole|prazole|statin|pril|sartan|olol|dipine|gliptin|gliflozin|tidine|setron"
    r"|triptan|azepam|zolam|oxetine|pram|mab|tinib|vir|coxib|profen|caine)"
)
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9'-]*")


@dataclass(frozen=True, kw_only=True)
class Mention:
    """A known term in a text; `kinds` has several entries for words such as aspirin (drug and allergen)."""

    start: int
    end: int
    kinds: frozenset[str]


@lru_cache(maxsize=4096)
def mentions(text: str) -> tuple[Mention, ...]:
    """All known terms of a text from left to right, longest first where several begin at one word."""
    words = [(match[0].lower(), match.start(), match.end()) for match in _WORD.finditer(text)]
    found: list[Mention] = []
    index = 0
    while index < len(words):
        size, kinds = _longest(words, index)
        if size:
            found.append(Mention(start=words[index][1], end=words[index + size - 1][2], kinds=kinds))
        index += size or 1
    return tuple(found)


def _longest(words: list[tuple[str, int, int]], index: int) -> tuple[int, frozenset[str]]:
    first = words[index][0]
    for term, kinds in _TERMS.get(first, ()):
        size = len(term)
        if index + size <= len(words) and all(words[index + offset][0] == term[offset] for offset in range(1, size)):
            return size, kinds
    if len(first) > 6 and _DRUG_ENDING.fullmatch(first):
        return 1, frozenset(("drug",))
    return 0, frozenset()


def _listed(text: str) -> Iterator[str]:
    return (term.strip() for term in text.replace("\n", " ").split(","))


def _sources() -> Iterator[tuple[Kind, Iterable[str]]]:
    for topic, ailment in AILMENTS.items():
        yield "condition", (topic, ailment.diagnosis or topic)
        yield "symptom", ailment.symptoms
    yield "condition", (*CONDITIONS, *FAMILY_CONDITIONS, *_listed(_MORE_CONDITIONS))
    yield "symptom", _listed(_MORE_SYMPTOMS)
    yield "drug", (*DRUGS, *_listed(_MORE_DRUGS))
    yield "allergen", (*ALLERGIES, *_listed(_MORE_ALLERGENS))


def _index() -> dict[str, list[tuple[tuple[str, ...], frozenset[str]]]]:
    """First word → terms that begin with it, longest first. Plurals in s are known with their singular."""
    kinds: dict[tuple[str, ...], set[str]] = {}
    for kind, terms in _sources():
        for term in terms:
            words = tuple(match[0].lower() for match in _WORD.finditer(term))
            kinds.setdefault(words, set()).add(kind)
            kinds.setdefault((*words[:-1], words[-1] + "s"), set()).add(kind)
    terms_by_first: dict[str, list[tuple[tuple[str, ...], frozenset[str]]]] = {}
    for words in sorted(kinds, key=len, reverse=True):
        terms_by_first.setdefault(words[0], []).append((words, frozenset(kinds[words])))
    return terms_by_first


_TERMS = _index()
